# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the outboxes of processes count that are forked from one, for each of them to read.

Prometheus reaches any one of the HTTP workers, so each reports the counts of all. The gevent
process is not forked: it counts for itself.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import threading
from typing import NamedTuple

from ..postgres.slots import nameless_file

ROWS = 256  # processes that one server has at a time; one more has none of its own
ROW = struct.Struct("=5q")


class Counts(NamedTuple):
    """What one outbox has counted."""

    pending: int = 0  # not confirmed yet
    failures: int = 0
    refused: int = 0
    dropped: int = 0


class SharedCounts:
    """The counts of all processes that are forked from the one that makes this.

    A row belongs to the process whose pid is in it, while that process lives.

    :raises OSError: where there is no memory or file to be had
    """

    def __init__(self):
        self._memory = mmap.mmap(-1, ROWS * ROW.size)
        self._file = nameless_file()
        self.begin()

    def begin(self) -> None:
        """Begin without a row, in a process that was forked."""
        self._lock = threading.Lock()  # guards _row
        self._row: int | None = None

    def publish(self, counts: Counts) -> None:
        """Let all processes know what this one has counted."""
        pid = os.getpid()
        with self._lock:
            if self._row is None:
                self._row = self._claim(pid)
            if self._row is not None:
                ROW.pack_into(self._memory, self._row * ROW.size, pid, *counts)

    def of_all(self) -> dict[int, Counts]:
        """Return the counts of all processes that are alive, by pid."""
        rows = (ROW.unpack_from(self._memory, i * ROW.size) for i in range(ROWS))
        return {pid: Counts(*counts) for pid, *counts in rows if pid and _is_alive(pid)}

    def _claim(self, pid: int) -> int | None:
        """Return a row that is free, and make it this process's; None where there is none."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)  # of processes; threads have _lock
        try:
            for row in range(ROWS):
                (owner,) = struct.unpack_from("=q", self._memory, row * ROW.size)
                if owner in (0, pid) or not _is_alive(owner):
                    ROW.pack_into(self._memory, row * ROW.size, pid, *Counts())
                    return row
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
