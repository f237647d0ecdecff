# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the outboxes of processes count that are forked from one, for each of them to read.

Prometheus reaches any one of the HTTP workers, so each reports the counts of all. The gevent
process is not forked: it counts for itself.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

ROWS = 256  # processes that one server has at a time; one more has none of its own
COLUMNS = 5
ROW = struct.Struct(f"{COLUMNS}q")


class Counts(NamedTuple):
    """What one outbox has counted."""

    pending: int = 0  # not confirmed yet
    failures: int = 0
    refused: int = 0
    dropped: int = 0


class SharedCounts:
    """The counts of all processes that are forked from the one that makes this.

    A row belongs to the process whose pid is in it, while that process lives. Nothing is locked:
    where two take one row at a time, one of them finds that out when it publishes again, and takes
    another row.
    """

    def __init__(self):
        self._numbers = memoryview(mmap.mmap(-1, ROWS * ROW.size)).cast("q")

    def publish(self, counts: Counts) -> None:
        """Let all processes know what this one has counted."""
        pid = os.getpid()
        row = self._row_of(pid)
        if row is not None:
            ROW.pack_into(self._numbers, row * ROW.size, pid, *counts)

    def of_all(self) -> dict[int, Counts]:
        """Return the counts of all processes that are alive, by pid."""
        rows = ROW.iter_unpack(self._numbers)
        return {pid: Counts(*counts) for pid, *counts in rows if pid and _is_alive(pid)}

    def _row_of(self, pid: int) -> int | None:
        """Return the row of a process, else one that is free; None where there is none."""
        owners = self._numbers[::COLUMNS].tolist()
        if pid in owners:
            return owners.index(pid)
        free = (row for row, owner in enumerate(owners) if not owner or not _is_alive(owner))
        return next(free, None)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:  # it may be another user's
        return not isinstance(error, ProcessLookupError)
    return True
