# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Sends what is pending, in one session with the pooler; one thread at a time.

* What is not confirmed is sent again, after delays (``backoff``): a NOTIFY that arrives twice only
  lets Odoo look twice.
* The session stays open only where a pooler is in transaction mode (``pool_mode``), which is
  checked again every 10 minutes: by a thread where a commit has no time for it. Not used for a
  minute, it is not used any more: a firewall may have forgotten it.
* The log says when sending begins to fail, and when it works again.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from typing import Callable, Mapping

import psycopg2

from ..config import timing
from ..postgres.backoff import Backoff
from ..postgres.hosts import PrimaryUnavailable, resolve_hosts
from ..postgres.log import PatientLogger
from ..postgres.pool_mode import PoolMode
from ..postgres.proof import NOTIFY_SQL, PROBE_CHANNEL
from ..postgres.session import UNINTERRUPTED, one_line
from ..postgres.wakeup import Wakeup
from .pending import Pending
from .session import NotifySession

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.outbox"))

MAX_STATEMENTS = 1000  # looked at for one round trip

# attempts for a statement that the pooler refuses for a reason of its own; then another NOTIFY
# tells whose fault it is: where that fails as well, it is the pooler's, and all is tried again
MAX_REFUSALS = 5
CONTROL_SQL = NOTIFY_SQL.format(PROBE_CHANNEL, "")

SEND_FAILED = "NOTIFY cannot be sent: %s. Commits go on; trying again until it is sent."


class Sender:
    """Two kinds of attempts: ``send_now`` for a commit that waits, ``send`` for a thread.

    :param parameters: libpq's, of the pooled connection
    :param pending: what there is to send
    :param connect: opens a session to send in; takes what ``NotifySession`` takes
    :param clock: tells the time, monotonic seconds
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        pending: Pending,
        connect: Callable[..., NotifySession],
        clock: Callable[[], float],
    ):
        self.failures = 0  # attempts that failed
        self.refused = 0  # statements that were dropped: see _on_refusal
        self.is_failing = False
        self.session: NotifySession | None = None  # idle, or waiting for its answer
        self._parameters, self._pending = parameters, pending
        self._connect, self._clock = connect, clock
        self._used_at = 0.0
        self._addresses: Mapping[str, str] | None = None  # of the pooler
        self._rotation = 0  # which of them comes first
        self._pool_mode = PoolMode(clock)
        self._has_to_see_mode = False  # a commit had no time for it
        self._commit_waits = False  # for this attempt
        self._wakeup: Wakeup = UNINTERRUPTED  # what may end its waits
        self._alone = 0  # so many statements are sent one by one
        self._refusals: Counter = Counter()  # of statements
        self._backoff = Backoff(timing.DEFAULT_TIMING._replace(max_delay=timing.OUTBOX_MAX_DELAY))

    @property
    def is_done(self) -> bool:
        """Whether all is confirmed, and a thread has nothing to do."""
        return not len(self._pending) and not self._has_to_see_mode

    def send_now(self, began: float) -> bool:
        """Send all that is pending for a commit that waits; tell whether it needs no thread.

        What has no answer by then stays in the session, for the thread to go on with.

        :param began: since when the commit waits, monotonic seconds
        """
        self._commit_waits, self._wakeup = True, UNINTERRUPTED
        return self._attempt(began) is None and not self._has_to_see_mode

    def send(self, wakeup: Wakeup) -> float | None:
        """Send all that is pending; return when to try again, or None if all is confirmed."""
        self._commit_waits, self._wakeup = False, wakeup
        self._has_to_see_mode = False
        return self._attempt(self._clock())

    def close_session(self) -> None:
        session, self.session = self.session, None
        if session:
            session.close()

    def _attempt(self, began: float) -> float | None:
        if not self._pending.in_flight and began - self._used_at >= timing.IDLE_TIMEOUT:
            self.close_session()
        try:
            if self.session:
                with contextlib.suppress(Exception):  # it had ended while it was idle
                    return self._try(began)
            return self._try(began)
        except Exception as error:
            return self._on_failure(began, error)

    def _try(self, began: float) -> float | None:
        """Send all that is pending, in the session that is open or in a new one.

        Return None where all is confirmed, or now where a commit does not wait any longer.

        :raises Exception: where the session fails, which is closed then
        """
        limit, deadline = timing.ANSWER_TIMEOUT, timing.NEVER
        if self._commit_waits:
            limit, deadline = timing.COMMIT_TIMEOUT, began + timing.COMMIT_TOTAL_TIMEOUT
        try:
            self.session = self.session or self._open_session()
            self.session.set_limits(limit, self._wakeup, deadline)
            if self._send_pending(self.session):
                self._keep_or_close(self.session)
                return None
            if self._commit_waits:
                return began
            raise psycopg2.OperationalError(f"no answer within {limit:g} s")
        except BaseException:
            self.close_session()
            self._pending.take_back()
            raise

    def _open_session(self) -> NotifySession:
        where, limit = self._parameters, timing.ANSWER_TIMEOUT
        if self._commit_waits:
            self._addresses = self._addresses or resolve_hosts(self._parameters, timeout=None)
            where, limit = self._addresses, timing.COMMIT_CONNECT_TIMEOUT
        return self._connect(where, limit, self._wakeup, self._rotation)

    def _keep_or_close(self, session: NotifySession) -> None:
        """Keep the session for the next commit, where it then holds no server connection."""
        self._used_at, kept = self._clock(), False
        with contextlib.suppress(OSError):
            kept = self._pool_mode.is_transaction(session)
        self._has_to_see_mode = kept is None
        if not kept:
            self.close_session()

    def _on_failure(self, began: float, error: Exception) -> float:
        """Take note of a failure, and return when to try again."""
        self._rotation += 1  # of two poolers the other one may answer
        self._addresses, self._alone = None, 0
        # the commit's own limit: a thread waits longer, and fails or does not
        late = self._commit_waits and self._clock() - began >= timing.COMMIT_CONNECT_TIMEOUT
        if late or not len(self._pending):  # or only the pool mode was to be seen
            return began
        self.failures += 1
        if not self.is_failing:
            self.is_failing = True
            _logger.warning(SEND_FAILED, one_line(error))
        unavailable = isinstance(error, PrimaryUnavailable)
        return self._backoff.next_attempt_at(began, self._clock(), unavailable)

    def _send_pending(self, session: NotifySession) -> bool:
        """Send all that is pending; return False where an answer is not there in time.

        :raises psycopg2.Error: where the session fails
        """
        pending = self._pending
        while True:
            try:
                limit = 1 if self._alone else MAX_STATEMENTS
                if not pending.in_flight and not pending.send_some(session.send, limit):
                    return True
                if not session.wait_for_answer():
                    return False
            except Exception as error:
                if not session.is_alive(error):
                    raise
                self._on_refusal(session, error)
            else:
                self._confirm()

    def _on_refusal(self, session: NotifySession, error: Exception) -> None:
        """Send each alone where several together are refused; drop one that is wrong, or that is
        refused ``MAX_REFUSALS`` times while another NOTIFY is taken.

        :raises Exception: the error, where it may be the pooler's own fault
        """
        keys = self._pending.in_flight
        if len(keys) > 1:
            self._alone = len(keys)
            self._pending.take_back()
            return
        if not session.is_permanent(error):
            (key,) = keys
            self._refusals[key] += 1
            if self._refusals[key] < MAX_REFUSALS:
                raise error
            session.run(CONTROL_SQL)
        self.refused += 1
        _logger.error("NOTIFY is refused, and dropped: %s", one_line(error))
        self._confirm()

    def _confirm(self) -> None:
        """Forget what was sent: its answer is there."""
        keys = self._pending.in_flight
        self._alone = max(0, self._alone - len(keys))
        for key in keys:
            self._refusals.pop(key, None)
        if self._pending.confirm() and self.is_failing:
            self.is_failing = False
            self._backoff.reset()
            _logger.info("NOTIFY is sent again")
