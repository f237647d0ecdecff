# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A limit for all processes that one server has forked: how many do the same at a time."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import tempfile
import threading
import time
from typing import Iterator

from ..config.timing import SLOT_INTERVAL


def nameless_file():
    """Return a file without name or content, for locks of its bytes, as long as the server runs.

    :raises OSError: where there is none to be had
    """
    # needs no folder; Python 3.8. Old kernels, gVisor and seccomp may refuse it
    with contextlib.suppress(AttributeError, OSError):
        return os.memfd_create("bus_alt_connection")
    return tempfile.TemporaryFile()


class Slots:
    """So many slots; the kernel frees those of a process that was killed.

    A semaphore would not be freed, and ``flock`` is shared over a fork.
    """

    def __init__(self, number: int):
        self._number = number
        self._file = None  # no file to be had: no limit
        with contextlib.suppress(OSError):
            # each byte of it that is locked is a slot that is taken
            self._file = nameless_file()
        # the locks of a file are a process's, so its threads take turns
        self._lock = threading.RLock()
        self._is_taken = False  # guarded by it

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a slot, and keep it; a thread that has one uses that again."""
        if self._file is None:
            yield
            return
        with self._lock:
            if self._is_taken:
                yield
                return
            slot = self._wait()
            self._is_taken = True
            try:
                yield
            finally:
                self._is_taken = False
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)

    def _wait(self) -> int:
        for slot in itertools.cycle(range(self._number)):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                return slot
            except (BlockingIOError, PermissionError):  # taken
                time.sleep(SLOT_INTERVAL)
        raise AssertionError  # it cycles for ever
