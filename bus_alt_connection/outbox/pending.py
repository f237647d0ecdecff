# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The statements that are not confirmed yet, in the order of their commits. No I/O here."""

from __future__ import annotations

import logging
import threading
from itertools import islice
from typing import Callable, Hashable

from ..postgres.log import PatientLogger

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.outbox"))

MAX_PENDING = 10000  # different statements: a payload has at most 8 kB, so these have 80 MB


class Pending:
    """Equal statements are kept once; too many push the oldest out. Any thread may call it."""

    def __init__(self):
        self.dropped = 0  # statements that were too many
        self._dropped_before = 0  # up to the last outage
        self._lock = threading.Lock()  # guards the next two
        self._waiting: dict[Hashable, tuple] = {}
        self._in_flight: dict[Hashable, tuple] = {}  # sent, not confirmed

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    @property
    def in_flight(self) -> list[Hashable]:
        """The keys of the statements that are sent and not confirmed."""
        return list(self._in_flight)

    def add(self, query, params) -> None:
        """Take a statement."""
        key = repr(query), repr(params)
        with self._lock:
            self._waiting.setdefault(key, (query, params))
            is_first = False
            if len(self._waiting) > MAX_PENDING:
                del self._waiting[next(iter(self._waiting))]
                self.dropped += 1
                is_first = self.dropped == self._dropped_before + 1
        if is_first:
            _logger.error("more than %d NOTIFY wait: the oldest are dropped", MAX_PENDING)

    def send_some(self, send: Callable[[list], int], limit: int) -> bool:
        """Send the oldest, at most so many; return whether there was anything.

        :param send: sends statements, and returns how many of them
        """
        with self._lock:
            # one that is equal to these may be committed from now on, and has to be sent again
            keys = list(islice(self._waiting, limit))
            self._in_flight = {key: self._waiting.pop(key) for key in keys}
        if keys:
            number = send(list(self._in_flight.values()))
            with self._lock:
                sent = {key: self._in_flight.pop(key) for key in keys[:number]}
                self._waiting = {**self._in_flight, **self._waiting}
                self._in_flight = sent
        return bool(keys)

    def take_back(self) -> None:
        """Let what was sent and not confirmed wait again, before the others."""
        with self._lock:
            self._waiting, self._in_flight = {**self._in_flight, **self._waiting}, {}

    def confirm(self) -> bool:
        """Forget what was sent: its answer is there. Return whether nothing waits any more."""
        with self._lock:
            self._in_flight = {}
            over = not self._waiting
        dropped = self.dropped - self._dropped_before
        if over and dropped:
            self._dropped_before = self.dropped
            _logger.error("%d NOTIFY were dropped", dropped)
        return over
