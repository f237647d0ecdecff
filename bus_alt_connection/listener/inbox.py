# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What a listening function of Odoo gets instead of a database connection.

Odoo's own loop stays as it is. It runs LISTEN, then waits on the inbox as it would on a
connection; the listener fills it. So no loss of a session ever reaches Odoo's loop.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from typing import Callable, Collection, Sequence

from psycopg2.extensions import Notify

from ..postgres.log import PatientLogger
from ..postgres.wakeup import Wakeup
from .inboxes import AnyInbox

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.inbox"))

ALL_DATABASES = ""  # the payload that stands for all databases that Odoo serves
NOT_READABLE = "%s: ignored a notification that Odoo cannot read: it is not from Odoo"

# what Odoo's listening functions run; the channel is the group
LISTEN = re.compile(r"\s*listen\s+\"?(\w+)", re.I)
IN_RECOVERY = re.compile(r"\s*select\s+pg_is_in_recovery\b", re.I)


class Inbox(AnyInbox):
    """Stands where Odoo's loops expect psycopg2's connection: to wait on, poll and empty.

    :param channel: that Odoo's function listens on
    :param catch_up_while_deaf: whether Odoo looks for what it missed also while nothing arrives,
        as the bus does; it then has something to look for from the start
    """

    fixed_fileno = False  # whether its loop asks for ``fileno`` only once, as the bus does
    # methods of the bus, called in threads of their own, since they wait for the database: the
    # first returns payloads, in batches, for those who missed something in so many seconds; the
    # second takes a connection of Odoo's pool, uses it and gives it back
    find_missed: Callable[[float], list[list[str]]] | None = None
    use_pool: Callable[[], object] | None = None

    def __init__(self, channel: str, catch_up_while_deaf: bool = False):
        super().__init__(channel, catch_up_while_deaf)
        # browsers may have subscribed before LISTEN has run: the bus looks once from the start
        self.needs_catch_up = catch_up_while_deaf
        self.rejected_count = 0  # payloads that were kept from Odoo
        self.closed = 0
        self.notifies: list = []
        self.feed = None  # a ``sharing.follow.Feed``, where Odoo's loop reads what a leader tells
        self._wakeup = Wakeup()
        self._lock = threading.Lock()  # guards _arrived
        # equal payloads merge: a cron worker may be busy for an hour
        self._arrived: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Inbox {self.channel}>"

    def is_valid(self, payload: str) -> bool:
        """Tell whether Odoo's loop survives this payload."""
        return True

    def catch_up_payloads(self, told: Sequence = ()) -> list[list[str]]:
        """Return payloads, in batches, that let Odoo look at all that it serves.

        :param told: batches for those who missed something, who are left out
        """
        return [[ALL_DATABASES]]

    def list_databases(self) -> Collection[str]:
        """Return the payloads for which ``ALL_DATABASES`` stands; called in Odoo's own thread,
        since it may have to wait for the database."""
        return [ALL_DATABASES]

    def deliver(self, payloads: Collection[str]) -> None:
        """Let Odoo's loop wake and find these payloads, but for those that it does not survive."""
        valid = [payload for payload in payloads if self.is_valid(payload)]
        if len(valid) < len(payloads) and not self.rejected_count:
            _logger.warning(NOT_READABLE, self.channel)
        self.rejected_count += len(payloads) - len(valid)
        if valid:
            with self._lock:
                self._arrived.update(dict.fromkeys(valid))
            self._wakeup.wake()

    def wake(self) -> None:
        """Let Odoo's loop ask for ``fileno`` again."""
        self._wakeup.wake()

    def fileno(self) -> int:
        return (self.feed or self._wakeup).fileno()

    def poll(self) -> None:
        if self.feed:
            self.feed.receive()
        self._wakeup.drain()
        with self._lock:
            arrived, self._arrived = dict(self._arrived), {}
        if ALL_DATABASES in arrived:
            del arrived[ALL_DATABASES]
            try:
                arrived.update(dict.fromkeys(self.list_databases()))
            except Exception as error:
                self.needs_catch_up = True  # once PostgreSQL has taken the next probe
                if self.feed:
                    self.feed.report_missed()
                _logger.debug("%s: not caught up yet: %s", self.channel, error)
        # the cron loops of 15.0 to 18.0 never empty it; every loop reads it before it polls again
        self.notifies = [Notify(0, self.channel, payload) for payload in arrived]

    def close(self) -> None:
        if not self.closed:
            self.closed = 1
            if self.on_close:
                self.on_close(self)
            self._wakeup.close()


class ListenConnection(contextlib.AbstractContextManager):
    """Stands where Odoo's listening functions expect a connection and its cursor, both in one.

    :param subscribe: is given the inbox once Odoo has run LISTEN
    """

    def __init__(self, inbox: Inbox, subscribe: Callable[[Inbox], None]):
        self._cnx = inbox  # Odoo's loops wait on the attribute of this name
        self._subscribe = subscribe

    def cursor(self) -> ListenConnection:
        return self

    def execute(self, query: str, params=None) -> None:
        """Take Odoo's LISTEN; the session of the listener will run it.

        :raises NotImplementedError: for a query whose answer Odoo would need now
        """
        match = LISTEN.match(query)
        own = match and match[1].lower() == self._cnx.channel
        if not own and not IN_RECOVERY.match(query):
            raise NotImplementedError(f"bus_alt_connection: a listener of Odoo asks {query!r}")

    def fetchone(self) -> tuple:
        """Answer ``pg_is_in_recovery()``: the listener never stays on a standby."""
        return (False,)

    def commit(self) -> None:
        if not self._cnx.on_close:
            self._subscribe(self._cnx)

    def rollback(self) -> None:
        """Do nothing; Odoo's exit may call it."""

    def close(self) -> None:
        self._cnx.close()

    def __exit__(self, *exc_info):
        self.close()
