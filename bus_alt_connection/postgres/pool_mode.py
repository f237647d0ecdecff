# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Does a pooler give a session another server connection for each transaction?"""

from __future__ import annotations

import contextlib
import time
from typing import Callable

import psycopg2

from ..config import timing
from .session import Session

BACKEND_PID_SQL = "SELECT pg_backend_pid()"
ROUNDS = 5
SESSIONS = 3


class PoolMode:
    """The mode of one pooler, asked again after a while.

    :param clock: tells the time, monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._expires, self._transaction = 0.0, False

    def is_transaction(self, session: Session) -> bool | None:
        """Tell whether this session with the pooler is in transaction mode.

        Return None where its deadline was too early to see it.
        """
        now = self._clock()
        if now >= self._expires:
            self._expires, self._transaction = now + timing.POOL_MODE_RETRY, False
            found = None
            with contextlib.suppress(psycopg2.Error):
                found = is_transaction_pooling(session)
            if found is not None:
                self._expires, self._transaction = now + timing.POOL_MODE_TTL, found
            elif session.deadline < timing.NEVER:
                self._expires = now  # a session without one may show it at once
                return None
        return self._transaction


def is_transaction_pooling(session: Session, limit: int = SESSIONS) -> bool | None:
    """Tell whether sessions with a pooler get server connections per transaction, in turn.

    A pooler in session mode invents backend ids too, so nothing but that shows it. None of the
    sessions holds a transaction meanwhile: a fleet that checks at once would wait for itself.
    Several poolers may be behind one address: two sessions with two of them share nothing.

    Return None where not all sessions were to be had, or an answer was not there in time: the pool
    is in session mode, or full, or the pooler is slow.

    :param limit: how many sessions are compared, at most
    :raises psycopg2.Error: where the session itself does not answer
    """
    direct = session.run(BACKEND_PID_SQL) == (session.connection.get_backend_pid(),)
    sessions, seconds = [session], timing.POOL_MODE_TIMEOUT
    with contextlib.ExitStack() as stack, contextlib.suppress(psycopg2.Error):
        while len(sessions) < (2 if direct else limit):
            sessions.append(stack.enter_context(session.another(seconds)))
            seconds = timing.POOL_MODE_MORE_TIMEOUT
            if any(_share(sessions) for _round in range(ROUNDS)):
                return True
        return False
    return None


def _share(sessions: list[Session]) -> bool:
    """Tell whether a session got two server connections, or two sessions got one."""
    backends = [(each.run(BACKEND_PID_SQL), each.run(BACKEND_PID_SQL)) for each in sessions]
    return len(set(backends)) < len(sessions) or any(first != again for first, again in backends)
