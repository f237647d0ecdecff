# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The pooled connection: a session on it that NOTIFY is sent in, and what is behind it."""

import contextlib
import socket
from typing import Iterable

import psycopg2

from .session import Session

UNANSWERED = 2000  # milliseconds until the kernel gives up who confirms no packet

BACKEND = "SELECT pg_backend_pid()"


class Pooled(Session):
    """A session on which statements are sent now, and the answer is taken later."""

    def meet(self) -> None:
        # on the socket itself: the oldest libpq has no keyword for it; a socket in the file
        # system refuses it
        refused = contextlib.suppress(OSError, AttributeError)
        with refused, self._socket() as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)

    def send(self, statements: Iterable[tuple]) -> None:
        """Send these (query, parameters), one transaction, for ``finish`` to wait for."""
        self._cursor = self.connection.cursor()  # psycopg2 wants it until the answer is there
        self._cursor.execute(b"; ".join(self._cursor.mogrify(*one) for one in statements))

    def refuses(self, error: Exception) -> bool:
        """Tell whether the statement itself is to blame, so that it is no use to send it again."""
        path = (psycopg2.OperationalError, psycopg2.InterfaceError, OSError)
        # class 25 of PostgreSQL's error codes: a standby that may be promoted
        standby = str(getattr(error, "pgcode", "")).startswith("25")
        return not (isinstance(error, path) or self.connection.closed or standby)


def lends(one: Session, other: Session) -> bool:
    """Tell whether these two get server connections of a pooler lent, in turn.

    A pooler that keeps sessions invents backends too, so nothing but that shows it. Neither holds a
    transaction meanwhile: a fleet that looks at once would wait for itself.

    :raises psycopg2.OperationalError: where one of them gets no server connection in time
    """
    for _attempt in range(5):
        first, again, others = one.run(BACKEND), one.run(BACKEND), other.run(BACKEND)
        if first != again or others == first:
            return True
    return False
