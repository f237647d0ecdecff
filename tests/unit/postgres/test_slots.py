"""A limit for all processes that one server has forked."""

import contextlib
import errno
import os
import select
import signal
import tempfile
import time

import pytest

from bus_alt_connection.postgres.slots import Slots


def refused(*_args):
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_where_memfd_create_is_refused(monkeypatch):
    """By an old kernel, gVisor or seccomp."""
    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    slots = Slots(1)
    assert slots._file is not None
    with slots._file, slots.take():
        pass


def test_where_there_is_no_file_there_is_no_limit(monkeypatch):
    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with Slots(1).take():
        pass


class Worker:
    """A process that is forked, takes a slot and keeps it.

    :param nested: it takes and frees another one meanwhile
    """

    def __init__(self, slots: Slots, nested: bool = False):
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            with slots.take():
                if nested:
                    with slots.take():
                        pass
                os.write(writer, b"\0")
                time.sleep(60)
            os._exit(0)
        os.close(writer)

    def has_slot(self, seconds: float = 5.0) -> bool:
        """Tell whether it gets one within so many seconds."""
        return bool(select.select([self._reader], [], [], seconds)[0])

    def close(self):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reader)


@pytest.fixture
def start():
    """A function that starts a worker."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **how: stack.enter_context(contextlib.closing(Worker(*args, **how)))


@pytest.mark.parametrize("number", [1, 3])
def test_so_many_at_a_time(start, number):
    slots = Slots(number)
    with contextlib.closing(Worker(slots)) as first:
        assert first.has_slot() and all(start(slots).has_slot() for _ in range(number - 1))
        late = start(slots)
        assert not late.has_slot(0.3)
    assert late.has_slot(), "the kernel frees those of a process that was killed"


def test_a_load_within_a_load_frees_nothing(start):
    """As where a database is loaded while another one is."""
    slots = Slots(1)
    assert start(slots, nested=True).has_slot()
    assert not start(slots).has_slot(0.3)
