# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Catching up: what a listening function of Odoo gets once notifications arrive again.

Odoo then looks into the database for what was missed: first for those of whom the database says
that they missed something, then for everybody. Nothing leaves this process.
"""

from __future__ import annotations

import functools
import logging
import random
from collections import deque
from concurrent.futures import Future
from typing import Callable, Iterable

from ..config.timing import (
    CATCH_UP_CHECK,
    CATCH_UP_JITTER,
    CATCH_UP_MAX_PERIOD,
    CATCH_UP_PERIOD,
    MISSED_TIMEOUT,
    NEVER,
)
from ..postgres.background import in_background
from .inbox import Inbox

_logger = logging.getLogger("odoo.addons.bus_alt_connection.catchup")

# of Odoo's pool: the last batch is done, but for what happens all the time
ALMOST_FREE = 1 / 16
HALF = 1 / 2

_logged_errors: set = set()


def may_tell(waited: float, pool_use: float) -> bool:
    """Tell whether the next batch may be told; this is asked each ``CATCH_UP_CHECK``.

    :param waited: seconds since the last one
    :param pool_use: the share of Odoo's pool that is in use: what it has left is for ordinary
        notifications
    """
    if pool_use <= ALMOST_FREE:
        return True
    return waited >= (CATCH_UP_PERIOD if pool_use <= HALF else CATCH_UP_MAX_PERIOD)


class CatchUp:
    """What is left to deliver, some at a time; the caller tells the time (monotonic seconds).

    :param uniform: draws a number from a range
    :param wake: called from another thread, when there may be something to deliver
    :param start: runs a function in a thread of this name
    """

    def __init__(
        self,
        uniform=random.uniform,
        wake: Callable[[], None] = lambda: None,
        start: Callable[[str, Callable], Future] = in_background,
    ):
        self._uniform, self._wake, self._start = uniform, wake, start
        self._due, self._told_at = 0.0, -NEVER
        self._pending: deque = deque()  # (inbox, payloads)
        self._searches: dict[Inbox, Future] = {}  # who missed something
        self._rounds: dict[Inbox, float] = {}  # until when it waits for the search

    def schedule(self, now: float, inboxes: Iterable[Inbox], only_missed: bool = False) -> None:
        """Deliver to these inboxes, and forget what was scheduled before.

        :param only_missed: go on with that, and deliver first to those who missed something
        """
        if not only_missed:
            self._pending.clear()
            self._rounds.clear()
            self._due = now + self._uniform(0, CATCH_UP_JITTER)
        for inbox in inboxes:
            inbox.needs_catch_up = False
            if inbox.find_missed and inbox not in self._searches:
                find = functools.partial(inbox.find_missed, now - inbox.missed_since)
                self._searches[inbox] = self._start("catch_up", find)
                self._searches[inbox].add_done_callback(lambda _search: self._wake())
            if not only_missed:
                self._rounds[inbox] = now + MISSED_TIMEOUT
        self._take_found(now)

    def deliver_due(self, now: float) -> None:
        """Deliver what is due, if anything is."""
        self._take_found(now)
        if self._pending and now >= self._due:
            self._due = now + CATCH_UP_CHECK
            inbox, payloads = self._pending[0]
            if may_tell(now - self._told_at, inbox.pool_use()):
                self._told_at = now
                self._pending.popleft()
                inbox.deliver(payloads)

    def _take_found(self, now: float) -> None:
        """Take what searches have found, and begin rounds that need not wait any longer."""
        for inbox, search in list(self._searches.items()):
            if search.done():
                del self._searches[inbox]
                # without an answer everybody is told all the same
                found = [] if search.exception() else search.result()
                if found:
                    self._pending.extendleft((inbox, payloads) for payloads in reversed(found))
                    self._due = max(now, self._told_at + CATCH_UP_CHECK)
        for inbox, deadline in list(self._rounds.items()):
            if inbox not in self._searches or now >= deadline:
                del self._rounds[inbox]
                self._begin_round(inbox)

    def _begin_round(self, inbox: Inbox) -> None:
        try:
            self._pending.extend((inbox, payloads) for payloads in inbox.catch_up_payloads())
        except Exception as error:
            inbox.needs_catch_up = True  # after the next probe again
            if type(error) not in _logged_errors:
                _logged_errors.add(type(error))
                _logger.exception("%s: what was missed is not looked for", inbox.channel)

    @property
    def busy(self) -> bool:
        """Whether there is something left to deliver."""
        return bool(self._pending or self._rounds)

    def next_due(self) -> float:
        """Return when something will be due, if no search ends before."""
        return min([self._due if self._pending else NEVER, *self._rounds.values()])
