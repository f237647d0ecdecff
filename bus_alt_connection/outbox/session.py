# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The session on the pooled connection that NOTIFY is sent in."""

from __future__ import annotations

import contextlib
import socket
from typing import Iterable

import psycopg2

from ..config.timing import TCP_USER_TIMEOUT_MS
from ..postgres.session import OnWait, Session

CONNECTION_ERRORS = (psycopg2.OperationalError, psycopg2.InterfaceError, OSError)


class NotifySession(Session):
    """A session on which statements are sent now, and the answer is taken later."""

    def _on_connect(self, on_wait: OnWait) -> None:
        # on the socket itself: the oldest libpq has no keyword for it; a socket in the file
        # system refuses it
        with contextlib.suppress(OSError, AttributeError), self._socket() as own:
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)

    def send(self, statements: Iterable[tuple]) -> None:
        """Send these (query, parameters), one transaction, for ``wait_ready`` to wait for."""
        self._cursor = self.connection.cursor()  # psycopg2 wants it until the answer is there
        self._cursor.execute(b"; ".join(self._cursor.mogrify(*each) for each in statements))

    def is_permanent(self, error: Exception) -> bool:
        """Tell whether the statement itself is wrong, so that it is no use to send it again."""
        # class 25 of PostgreSQL's error codes: a standby that may be promoted
        standby = str(getattr(error, "pgcode", "")).startswith("25")
        return not (isinstance(error, CONNECTION_ERRORS) or self.connection.closed or standby)
