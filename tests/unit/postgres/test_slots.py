"""A limit for all processes that one server has forked."""

import errno
import os
import tempfile

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


@pytest.mark.parametrize("number", [1, 3])
def test_so_many_at_a_time(number):
    slots = Slots(number)
    taken = [slots._wait() for _slot in range(number)]
    assert len(taken) == number
