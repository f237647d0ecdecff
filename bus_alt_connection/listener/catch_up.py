# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Catching up: what a listening function of Odoo gets once notifications arrive again.

Odoo then looks into the database for what was missed. Nothing leaves this process.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from typing import Collection

from ..config.timing import CATCH_UP_JITTER, CATCH_UP_PERIOD, NEVER
from ..postgres.log import PatientLogger
from .inbox import AnyInbox

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.catchup"))

_logged_errors: set = set()


class CatchUp:
    """What is left to deliver, some at a time; the caller tells the time (monotonic seconds).

    :param uniform: draws a number from a range
    """

    def __init__(self, uniform=random.uniform):
        self._uniform, self._due = uniform, 0.0
        self._pending: deque = deque()  # (inbox, payloads)

    def schedule(self, now: float, inboxes: Collection[AnyInbox]) -> None:
        """Deliver to these inboxes, and forget what was scheduled before."""
        local = [inbox for inbox in inboxes if inbox.is_local]
        for inbox in inboxes:
            if not inbox.is_local:
                inbox.look()  # its process does the same there
        if local:
            self._pending.clear()
            self._due = now + self._uniform(0, CATCH_UP_JITTER)
        for inbox in local:
            inbox.needs_catch_up = False
            try:
                self._pending += [(inbox, payloads) for payloads in inbox.catch_up_payloads()]
            except Exception as error:
                inbox.needs_catch_up = True  # after the next probe again
                if type(error) not in _logged_errors:
                    _logged_errors.add(type(error))
                    _logger.exception("%s: what was missed is not looked for", inbox.channel)

    def schedule_while_deaf(self, now: float, inboxes: Collection[AnyInbox]) -> None:
        """Deliver to these inboxes, unless a long round is to be finished first."""
        if not self.busy:
            self.schedule(now, inboxes)
            for inbox in inboxes:
                inbox.needs_catch_up = True  # until it listens, there may be more

    def deliver_due(self, now: float) -> None:
        """Deliver what is due, if anything is."""
        if now >= self.next_due():
            self._due = now + CATCH_UP_PERIOD
            inbox, payloads = self._pending.popleft()
            inbox.deliver(payloads)

    @property
    def busy(self) -> bool:
        """Whether there is something left to deliver."""
        return bool(self._pending)

    def next_due(self) -> float:
        """Return when something will be due."""
        return self._due if self._pending else NEVER
