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
            self._expires, self._transaction = now + timing.POOL_MODE_TTL, False
            # no second connection in time: the pool is in session mode, or full
            with contextlib.suppress(psycopg2.Error), self._connect(
                self._parameters, timing.POOL_MODE_TIMEOUT, wakeup, rotation
            ) as other:
                self._transaction = is_transaction_pooling(session, other)
        return self._transaction


def is_transaction_pooling(session: Session, other: Session) -> bool:
    """Tell whether these two get server connections of a pooler per transaction, in turn.

    A pooler in session mode invents backend ids too, so nothing but that shows it. Neither holds a
    transaction meanwhile: a fleet that checks at once would wait for itself.

    :raises psycopg2.OperationalError: where one of them gets no server connection in time
    """
    for _round in range(ROUNDS):
        first, again = session.run(BACKEND_PID_SQL), session.run(BACKEND_PID_SQL)
        if first != again or other.run(BACKEND_PID_SQL) == first:
            return True
    return False
