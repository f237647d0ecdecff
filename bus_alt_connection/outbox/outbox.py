# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The outbox: takes the NOTIFY of a commit, and sends it without letting the commit wait.

It is in memory: what is not sent when the process ends is lost.

* Where a session is open and idle, ``put`` writes the statement to its socket: it has left the
  process before the commit returns.
* Otherwise it waits, and a thread sends all that waits in one round trip, in the order of the
  commits, equal ones once. What is not confirmed is sent again, after delays (``backoff``): a
  NOTIFY that arrives twice only lets Odoo look twice.
* The session stays open only where a pooler is in transaction mode (``pool_mode``), which is
  checked again every 10 minutes, and not without use for a minute: a firewall may have forgotten
  it.
* The log says when sending begins to fail, and when it works again.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from typing import Callable, Mapping, Sequence

import psycopg2

from ..config import timing
from ..postgres.backoff import Backoff
from ..postgres.hosts import PrimaryUnavailable
from ..postgres.pool_mode import PoolMode
from ..postgres.session import Session, one_line
from ..postgres.wakeup import Stopped, Wakeup
from .session import NotifySession

_logger = logging.getLogger("odoo.addons.bus_alt_connection.outbox")

MAX_PENDING = 10000  # different statements: a payload has at most 8 kB, so these have 80 MB

SEND_FAILED = "NOTIFY cannot be sent: %s. Commits go on; trying again until it is sent."


class Outbox:
    """One for each process; a forked process begins with an empty one.

    :param parameters: libpq's, of the pooled connection
    :param connect: opens a session to send in; takes what ``NotifySession`` takes
    :param connect_other: opens a second one, to see the pooler's pool mode
    :param wakeup: makes what ends the waits of the thread
    :param clock: tells the time, monotonic seconds
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        connect: Callable[..., NotifySession] = NotifySession,
        connect_other: Callable[..., Session] = Session,
        wakeup: Callable[[], Wakeup] = Wakeup,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._parameters, self._clock = parameters, clock
        self._connect, self._connect_other, self._make_wakeup = connect, connect_other, wakeup
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.close, timing.STOP_TIMEOUT)

    def _reset(self) -> None:
        # what the parent has stays the parent's: psycopg2 closes nothing in another process
        self.failures = self.dropped = 0  # attempts that failed; statements that were too many
        self._wakeup = self._make_wakeup()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards the next three
        self._pending: dict[tuple, tuple] = {}  # statements, in the order of their commits
        self._in_flight: dict[tuple, tuple] = {}  # not confirmed yet
        self._lent_session: NotifySession | None = None  # what ``put`` may send on
        self._used_at = 0.0
        self._pool_mode = PoolMode(self._parameters, self._connect_other, self._clock)
        self._rotation = 0  # which address of the pooler comes first
        self._backoff, self._failing = Backoff(timing.DEFAULT_TIMING), False

    def __repr__(self) -> str:
        return f"<Outbox: {self.unconfirmed} unconfirmed>"

    @property
    def unconfirmed(self) -> int:
        """How many statements are not confirmed yet."""
        return len(self._pending) + len(self._in_flight)

    def put(self, query, params=None) -> None:
        """Take a statement and return at once, whatever is wrong on the way."""
        key, statement = (repr(query), repr(params)), (query, params)
        with self._lock:
            if self._lent_session and not self.unconfirmed:
                # that its session has ended is the thread's to find
                with contextlib.suppress(psycopg2.Error):
                    self._lent_session.send([statement])
                    self._in_flight[key] = statement
                    return  # the answer wakes the thread
            self._pending.setdefault(key, statement)
            if len(self._pending) > MAX_PENDING:
                del self._pending[next(iter(self._pending))]
                self.dropped += 1
                if self.dropped == 1:
                    _logger.error("more than %d NOTIFY wait: the oldest are dropped", MAX_PENDING)
            if self._thread is None or not self._thread.is_alive():
                self._start_thread()
        self._wakeup.wake()

    def _start_thread(self) -> None:
        name = "bus_alt_connection.outbox"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        with contextlib.suppress(RuntimeError):  # none to be had: the next ``put`` tries again
            thread.start()
            self._thread = thread

    def close(self, seconds: float) -> None:
        """Send what is left, for at most so many seconds, and end."""
        if self._thread and self._thread.is_alive():
            deadline = time.monotonic() + seconds
            while self.unconfirmed and time.monotonic() < deadline:
                time.sleep(0.001)
            self._wakeup.stop()
            self._thread.join(seconds)

    # --- in the thread --------------------------------------------------------------

    def _run(self) -> None:
        due = 0.0
        with contextlib.suppress(Stopped):
            while True:
                wait = due - self._clock() if self._pending else timing.MAX_WAIT
                try:
                    if wait > 0:
                        self._wakeup.wait(wait)
                    else:
                        due = self._send_until_failure()
                except Exception:  # no file descriptor, no memory to be had
                    time.sleep(timing.AFTER_UNEXPECTED_ERROR)

    def _send_until_failure(self) -> float:
        """Connect and send, and return when the next attempt may begin."""
        began = self._clock()
        try:
            with self._connect(
                self._parameters, timing.ANSWER_TIMEOUT, self._wakeup, self._rotation
            ) as session:
                self._serve(session)
        except Exception as error:
            self._rotation += 1  # of two poolers the other one may answer
            with self._lock:
                self._pending, self._in_flight = {**self._in_flight, **self._pending}, {}
            if self._pending:  # else an idle session has ended
                return self._on_failure(began, error)
        return 0.0

    def _on_failure(self, began: float, error: Exception) -> float:
        self.failures += 1
        if not self._failing:
            self._failing = True
            _logger.warning(SEND_FAILED, one_line(error))
        unavailable = isinstance(error, PrimaryUnavailable)
        return self._backoff.next_attempt_at(began, self._clock(), unavailable)

    def _serve(self, session: NotifySession) -> None:
        """Send on this session until it has to be closed.

        :raises psycopg2.Error: where it fails
        """
        self._used_at = self._clock()
        while self._clock() < self._used_at + timing.IDLE_TIMEOUT:
            while self._pending:
                self._send_pending(session)
            # in session mode it would hold a server connection
            if not self._pool_mode.is_transaction(session, self._wakeup, self._rotation):
                return
            self._lend(session)

    def _lend(self, session: NotifySession) -> None:
        """Let ``put`` send on this idle session: until it has, or for a second.

        While ``_lent_session`` is set, the session belongs to the thread that holds the lock; else
        to this one.
        """
        with self._lock:
            if self._pending:
                return
            self._lent_session = session
        try:
            answered = self._wakeup.wait(timing.LEND_TIMEOUT, session.connection)
        finally:
            with self._lock:
                self._lent_session = None
        if answered or self._in_flight:
            self._take_answer(session, list(self._in_flight.values()))
            self._confirm()

    def _send_pending(self, session: NotifySession) -> None:
        """Send all that waits at once; where one statement is wrong, each alone."""
        with self._lock:
            self._in_flight, self._pending = self._pending, {}
        statements = list(self._in_flight.values())
        if not self._take_answer(session, statements, send=True):
            for statement in statements:
                self._take_answer(session, [statement], send=True)
        self._confirm()

    def _take_answer(
        self, session: NotifySession, statements: Sequence[tuple], send: bool = False
    ) -> bool:
        """Wait for the answer to these; return False where several together are refused.

        :param send: send them first; else ``put`` has
        :raises psycopg2.Error: where the session fails
        """
        try:
            if send:
                session.send(statements)
            session.wait_ready()
        except Exception as error:
            if not session.is_permanent(error):
                raise
            if len(statements) > 1:
                return False
            _logger.error("NOTIFY is refused, and dropped: %s", one_line(error))
        return True

    def _confirm(self) -> None:
        """Forget what was sent: its answer is there."""
        with self._lock:
            self._in_flight = {}
        self._used_at = self._clock()
        if self._failing:
            self._failing = False
            self._backoff.reset()
            _logger.info("NOTIFY is sent again")
