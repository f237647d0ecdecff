# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Does a pooler give a session another server connection for each transaction?"""

from __future__ import annotations

import contextlib
import time
from typing import Callable, Mapping

import psycopg2

from ..config import timing
from .session import Session
from .wakeup import Wakeup

BACKEND_PID_SQL = "SELECT pg_backend_pid()"
ROUNDS = 5
SESSIONS = 3


class PoolMode:
    """The mode of the pooler that some parameters lead to, asked again after a while.

    :param parameters: libpq's
    :param connect: opens a session; takes what ``Session`` takes
    :param clock: tells the time, monotonic seconds
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        connect: Callable[..., Session] = Session,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._parameters, self._connect, self._clock = parameters, connect, clock
        self._expires, self._transaction = 0.0, False

    def is_transaction(self, session: Session, wakeup: Wakeup, rotation: int) -> bool:
        """Tell whether this session with the pooler is in transaction mode.

        :param wakeup: what may end the wait
        :param rotation: which address comes first
        """
        now = self._clock()
        if now >= self._expires:
            self._expires, self._transaction = now + timing.POOL_MODE_RETRY, False
            found = is_transaction_pooling(
                session,
                lambda seconds: self._connect(self._parameters, seconds, wakeup, rotation),
            )
            if found is not None:
                self._expires, self._transaction = now + timing.POOL_MODE_TTL, found
        return self._transaction


def is_transaction_pooling(
    session: Session, connect: Callable[[float], Session], limit: int = SESSIONS
) -> bool | None:
    """Tell whether sessions with a pooler get server connections per transaction, in turn.

    A pooler in session mode invents backend ids too, so nothing but that shows it. None of the
    sessions holds a transaction meanwhile: a fleet that checks at once would wait for itself.
    Several poolers may be behind one address: two sessions with two of them share nothing.

    Return None where no second session was to be had in time: the pool is in session mode, or full,
    or the pooler is slow.

    :param connect: opens another session like it, within so many seconds
    :param limit: how many sessions are compared, at most
    """
    direct = session.run(BACKEND_PID_SQL) == (session.connection.get_backend_pid(),)
    sessions, seconds = [session], timing.POOL_MODE_TIMEOUT
    with contextlib.ExitStack() as stack, contextlib.suppress(psycopg2.Error):
        while len(sessions) < (2 if direct else limit):
            sessions.append(stack.enter_context(connect(seconds)))
            seconds = timing.POOL_MODE_MORE_TIMEOUT
            if any(_share(sessions) for _round in range(ROUNDS)):
                return True
    return False if len(sessions) > 1 else None


def _share(sessions: list[Session]) -> bool:
    """Tell whether a session got two server connections, or two sessions got one."""
    backends = [(each.run(BACKEND_PID_SQL), each.run(BACKEND_PID_SQL)) for each in sessions]
    return len(set(backends)) < len(sessions) or any(first != again for first, again in backends)
