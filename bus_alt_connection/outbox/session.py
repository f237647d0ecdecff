# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The session on the pooled connection that NOTIFY is sent in."""

from __future__ import annotations

import contextlib
import socket
from typing import Sequence

import psycopg2
from psycopg2 import extensions

from ..config.timing import NEVER, TCP_USER_TIMEOUT_MS
from ..postgres.session import Session
from ..postgres.wakeup import Wakeup

CONNECTION_ERRORS = (psycopg2.OperationalError, psycopg2.InterfaceError, OSError)

# bytes of a query, at most, so that the answer comes in time even on a slow link
MAX_BATCH = 65536

# classes of PostgreSQL's error codes that are about the statement itself; poolers have codes of
# their own for what is not ("Appendix A. PostgreSQL Error Codes" of its documentation)
STATEMENT_CLASSES = ("0A", "21", "22", "23", "42", "P0")


class NotifySession(Session):
    """A session on which statements are sent now, and the answer is taken later."""

    def _on_connect(self) -> None:
        # on the socket, since old versions of libpq have no keyword; a Unix socket refuses it
        # (OSError), and some systems do not know it (AttributeError)
        with contextlib.suppress(OSError, AttributeError), self._socket() as own:
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)

    def set_limits(self, seconds: float, wakeup: Wakeup, deadline: float = NEVER) -> None:
        """Let every wait from now on last so many seconds at most, and be ended by this wakeup.

        :param deadline: when all of them end, monotonic seconds
        """
        self._timeout, self._wakeup, self.deadline = seconds, wakeup, deadline

    def send(self, statements: Sequence[tuple]) -> int:
        """Send the first of these (query, parameters), as many as fit, in one transaction.

        Return how many; ``wait_for_answer`` takes their answer.
        """
        self._cursor = self.connection.cursor()  # psycopg2 wants it until the answer is there
        # tracing libraries put classes of their own there, and expect one statement at a time
        traced = type(self.connection) is not extensions.connection
        if len(statements) == 1 or traced or type(self._cursor) is not extensions.cursor:
            self._cursor.execute(*statements[0])
            return 1
        encoding = extensions.encodings.get(self.connection.encoding, "utf-8")
        texts, size = [], 0
        for statement in statements:
            text = self._cursor.mogrify(*statement)
            size += len(text)
            if texts and size > MAX_BATCH:
                break
            texts.append(text.decode(encoding))
        self._cursor.execute("; ".join(texts))
        return len(texts)

    def wait_for_answer(self) -> bool:
        """Wait for the answer; return False where it is not there in time.

        :raises psycopg2.Error: where the answer is an error, or the session has ended
        """
        try:
            self.wait_ready()
        except psycopg2.OperationalError:
            if self.connection.closed or not self.connection.isexecuting():
                raise
            return False
        return True

    def is_permanent(self, error: Exception) -> bool:
        """Tell whether the statement itself is wrong, so that it is no use to send it again."""
        if isinstance(error, (*CONNECTION_ERRORS, MemoryError)) or self.connection.closed:
            return False
        code = getattr(error, "pgcode", None)
        return not code or code.startswith(STATEMENT_CLASSES)

    def is_alive(self, error: Exception) -> bool:
        """Tell whether the session goes on after an error, which then is an answer."""
        return not isinstance(error, CONNECTION_ERRORS) and not self.connection.closed
