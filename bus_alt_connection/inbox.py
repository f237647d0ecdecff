# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What a listening function of Odoo gets instead of a database connection.

Odoo's own loop stays as it is. It says LISTEN, then waits on the inbox as it would on a
connection; the listener fills it. So no loss of a session ever reaches Odoo's loop.
"""

import contextlib
import logging
import re
import threading
from typing import Callable, Collection, Dict, List, Optional

from psycopg2.extensions import Notify

from .waker import Waker

_logger = logging.getLogger(__name__)

EVERYTHING = ""  # the payload that stands for all that Odoo's function serves
NOT_READABLE = "%s: ignored a notification that Odoo cannot read: it is not from Odoo"


class Inbox:
    """Stands where Odoo's loops expect psycopg2's connection: to wait on, poll and empty.

    :param channel: that Odoo's function listens on
    :param bus: whether it is the bus, which looks for what it missed also while nothing is heard
    :param accepts: tells of a payload whether Odoo's loop survives it
    :param everything: returns payloads, in batches, that let Odoo look at all that it serves
    :param names: returns the payloads for which ``EVERYTHING`` stands; asked in Odoo's own thread,
        since it may have to wait for the database
    """

    def __init__(
        self,
        channel: str,
        bus: bool = False,
        accepts: Callable[[str], bool] = lambda payload: True,
        everything: Callable[[], List[List[str]]] = lambda: [[EVERYTHING]],
        names: Callable[[], Collection[str]] = lambda: [EVERYTHING],
    ):
        self.channel, self.bus, self.everything = channel, bus, everything
        # a bus listens because somebody has subscribed, maybe a moment ago
        self.missed = bus
        self.refused = 0  # payloads that were kept from Odoo
        self.closed = 0
        self.notifies: list = []
        self.on_close: Optional[Callable[[Inbox], None]] = None
        self._accepts, self._names = accepts, names
        self._waker, self._lock = Waker(), threading.Lock()
        # nobody needs the same message twice, and a cron worker may be busy for an hour
        self._arrived: Dict[str, None] = {}

    def deliver(self, payloads: Collection[str]) -> None:
        """Let Odoo's loop wake and find these payloads, but for those that it does not survive."""
        good = [payload for payload in payloads if self._accepts(payload)]
        if len(good) < len(payloads) and not self.refused:
            _logger.warning(NOT_READABLE, self.channel)
        self.refused += len(payloads) - len(good)
        if good:
            with self._lock:
                self._arrived.update(dict.fromkeys(good))
            self._waker.wake()

    def fileno(self) -> int:
        return self._waker.fileno()

    def poll(self) -> None:
        self._waker.drain()
        with self._lock:
            arrived, self._arrived = dict(self._arrived), {}
        if EVERYTHING in arrived:
            del arrived[EVERYTHING]
            try:
                arrived.update(dict.fromkeys(self._names()))
            except Exception as error:
                self.missed = True  # it is told again later
                _logger.debug("%s: not caught up yet: %s", self.channel, error)
        # the cron loops of 15.0 to 18.0 never empty it; every loop reads it before it polls again
        self.notifies = [Notify(0, self.channel, payload) for payload in arrived]

    def close(self) -> None:
        if not self.closed:
            self.closed = 1
            if self.on_close:
                self.on_close(self)
            self._waker.close()


class Cursor(contextlib.AbstractContextManager):
    """Stands where Odoo's listening functions expect a connection and its cursor.

    :param listen: is given the inbox once Odoo has run LISTEN
    """

    def __init__(self, inbox: Inbox, listen: Callable[[Inbox], None]):
        self._cnx, self._listen = inbox, listen

    def cursor(self) -> "Cursor":
        return self

    def execute(self, query: str, params=None) -> None:
        """Take Odoo's LISTEN; the session of the listener will run it.

        :raises NotImplementedError: for a query whose answer Odoo would need now
        """
        if not re.match(rf"\s*(listen\s+{self._cnx.channel}\b|select pg_is_in_rec)", query, re.I):
            raise NotImplementedError(f"bus_alt_connection: a listener of Odoo asks {query!r}")

    def fetchone(self) -> tuple:
        """Answer ``pg_is_in_recovery()``: the listener never stays on a standby."""
        return (False,)

    def commit(self) -> None:
        if not self._cnx.on_close:
            self._listen(self._cnx)

    def rollback(self) -> None:
        """Do nothing; Odoo's exit may call it."""

    def close(self) -> None:
        self._cnx.close()

    def __exit__(self, *exc_info):
        self.close()
