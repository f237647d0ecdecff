# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Catching up: what a listening function of Odoo gets once it listens again and the pooled
connection works; the bus also while it is deaf.

Odoo then looks into the database for what was missed: first for those of whom the database says
that they missed something, then for everybody: that is a round. No NOTIFY is sent for it. Followers
in other processes are told to do the same there.
"""

from __future__ import annotations

import functools
import logging
import random
from collections import deque
from concurrent.futures import Future
from typing import Callable, Collection

from ..config.timing import (
    CATCH_UP_ASK,
    CATCH_UP_JITTER,
    CATCH_UP_MAX_PERIOD,
    CATCH_UP_PERIOD,
    MISSED_TIMEOUT,
    NEVER,
)
from ..postgres.background import in_background
from ..postgres.log import PatientLogger
from .inbox import Inbox
from .inboxes import AnyInbox

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.catchup"))

_logged_errors: set = set()


class CatchUp:
    """What is left to deliver, some at a time; ``now`` is passed in (monotonic seconds).

    Each batch makes Odoo take connections of its pool. Then ``use_pool`` takes one, too: once it
    got it, the pool has room, and the next batch is due. So it is as fast as pool, pooler and
    process let it, and ordinary notifications never wait for more than a batch.

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
        self._due = 0.0
        self._last: Inbox | None = None  # got the last batch, and its pool is not asked yet
        self._answer: Future | None = None  # of the pool
        self._pending: deque = deque()  # (inbox, payloads)
        self._searches: dict[Inbox, Future] = {}  # who missed something
        self._rounds: dict[Inbox, float] = {}  # until when it waits for the search

    def schedule(
        self, now: float, inboxes: Collection[AnyInbox], only_missed: bool = False
    ) -> None:
        """Deliver to these inboxes, and forget what was scheduled for them before.

        :param only_missed: keep that, and put those who missed something in front of it
        """
        local = [inbox for inbox in inboxes if inbox.is_local]
        for inbox in inboxes:
            if not inbox.is_local:
                inbox.look()  # its process does the same there
        if local and not only_missed:
            self._pending = deque(due for due in self._pending if due[0] not in local)
            self._due = now + self._uniform(0, CATCH_UP_JITTER)
        for inbox in local:
            inbox.needs_catch_up = False
            if inbox.find_missed and inbox not in self._searches:
                find = functools.partial(inbox.find_missed, now - inbox.missed_since)
                self._searches[inbox] = self._in_background(find)
            if not only_missed:
                self._rounds[inbox] = now + MISSED_TIMEOUT
        self._take_found(now)

    def schedule_while_deaf(self, now: float, inboxes: Collection[AnyInbox]) -> None:
        """Deliver to these inboxes; a round that is under way is not begun again."""
        self.schedule(now, inboxes, only_missed=self.busy)
        for inbox in inboxes:
            inbox.needs_catch_up = True  # until it listens, there may be more

    def deliver_due(self, now: float) -> None:
        """Deliver what is due, if anything is."""
        self._take_found(now)
        if self._answer and self._answer.done():
            # a pool without a connection to spare is left alone for a while
            self._due = now + CATCH_UP_MAX_PERIOD if self._answer.exception() else now
            self._answer = None
        if now < self._due:
            return
        if not self._pending:
            self._last = None
            return
        if self._last and self._last.use_pool and not self._answer:
            self._answer = self._in_background(self._last.use_pool)
            self._last, self._due = None, now + CATCH_UP_MAX_PERIOD
            return
        self._last, payloads = self._pending.popleft()
        period = CATCH_UP_ASK if self._last.use_pool else CATCH_UP_PERIOD
        self._due = now + (CATCH_UP_MAX_PERIOD if self._answer else period)
        self._last.deliver(payloads)

    def _in_background(self, function: Callable) -> Future:
        future = self._start("catch_up", function)
        future.add_done_callback(lambda _future: self._wake())
        return future

    def _take_found(self, now: float) -> None:
        """Take what searches have found, and begin rounds that need not wait any longer."""
        found: dict[Inbox, list] = {}
        for inbox, search in list(self._searches.items()):
            if search.done():
                del self._searches[inbox]
                # without an answer everybody is told all the same
                found[inbox] = [] if search.exception() else search.result()
                self._pending.extendleft((inbox, payloads) for payloads in reversed(found[inbox]))
                if found[inbox] and not self._last and not self._answer:
                    self._due = now
        for inbox, deadline in list(self._rounds.items()):
            if inbox not in self._searches or now >= deadline:
                del self._rounds[inbox]
                # a search that ends later was not waited for: those whom it finds are told twice
                self._begin_round(inbox, found.get(inbox, []))

    def _begin_round(self, inbox: Inbox, told: list[list[str]]) -> None:
        try:
            self._pending.extend((inbox, payloads) for payloads in inbox.catch_up_payloads(told))
        except Exception as error:
            inbox.needs_catch_up = True  # once PostgreSQL has taken the next probe
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
