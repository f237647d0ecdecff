# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What a listening function of Odoo gets instead of a database connection.

Odoo's own loop stays as it is. It says LISTEN, then waits on the inbox as it would on a
connection; the watch fills it. So no loss of a session ever reaches Odoo's loop.
"""

import re
import threading
from typing import Callable, Dict, Iterable

from psycopg2.extensions import Notify

from .session import Waker


class Listener:
    """Stands where Odoo expects what ``odoo.sql_db.db_connect`` returns.

    :param watch: makes and starts the watch for an inbox and the statements to be run in
        each session; what it returns has ``stop``
    """

    def __init__(self, watch: Callable):
        self._watch = watch

    def cursor(self) -> "Cursor":
        return Cursor(self._watch)


class Cursor:
    """Stands where Odoo's listening functions expect a cursor: all that they ask of one."""

    def __init__(self, watch: Callable):
        self._cnx = Inbox()
        self._statements: list = []
        self._start_watch = watch
        self._watch = None

    def execute(self, query: str, params=None) -> None:
        """Keep the statement for every session that the watch will open.

        :raises NotImplementedError: for a query whose answer Odoo would need now
        """
        if re.match(r"\s*(listen|set)\b", query, re.IGNORECASE) and not params:
            self._statements.append(query)
        elif "pg_is_in_recovery()" not in query:
            raise NotImplementedError(f"bus_alt_connection: a listener of Odoo asks {query!r}")

    def fetchone(self) -> tuple:
        """Answer ``pg_is_in_recovery()``: the watch never stays on a standby."""
        return (False,)

    def commit(self) -> None:
        if self._watch is None:
            self._watch = self._start_watch(self._cnx, self._statements)
            self._cnx.on_close = self._watch.stop

    def rollback(self) -> None:
        """Do nothing; a context manager's exit may call it."""

    def close(self) -> None:
        self._cnx.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class Inbox:
    """Stands where Odoo's loops expect psycopg2's connection: to wait on, poll and empty."""

    def __init__(self):
        self.closed = 0
        self.notifies: list = []
        self.on_close = None
        self._waker = Waker()
        self._lock = threading.Lock()
        # nobody needs the same message twice, and a cron worker may be busy for an hour
        self._arrived: Dict[tuple, Notify] = {}

    def deliver(self, channel: str, payloads: Iterable[str]) -> None:
        """Let Odoo's loop wake and find these notifications; for the watch."""
        with self._lock:
            for payload in payloads:
                self._arrived.setdefault((channel, payload), Notify(0, channel, payload))
        self._waker.wake()

    def fileno(self) -> int:
        return self._waker.fileno()

    def poll(self) -> None:
        self._waker.drain()
        with self._lock:
            self.notifies.extend(self._arrived.values())
            self._arrived.clear()

    def close(self) -> None:
        if not self.closed:
            self.closed = 1
            if self.on_close:
                self.on_close()
            self._waker.close()
