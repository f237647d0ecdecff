# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The outbox: takes the NOTIFY of a commit, and sends it without letting the commit wait for long.

It is in memory: what is not sent when the process ends is lost.

* ``put`` sends the statement itself, and waits some milliseconds for the answer: it has left the
  process before the commit returns. No thread is needed for that; one would reserve 72 MB.
* What is not confirmed by then waits, and a thread sends all that waits, in the order of the
  commits, equal ones once, as many in one round trip as a slow link takes. What is not confirmed is
  sent again, after delays (``backoff``): a NOTIFY that arrives twice only lets Odoo look twice. The
  thread ends once nothing waits.
* The session stays open only where a pooler is in transaction mode (``pool_mode``), which is
  checked again every 10 minutes. Not used for a minute, it is not used any more: a firewall may
  have forgotten it. Before the process forks it is closed.
* The log says when sending begins to fail, and when it works again.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections import Counter
from itertools import islice
from typing import Callable, Mapping

import psycopg2

from ..config import timing
from ..postgres.backoff import Backoff
from ..postgres.hosts import PrimaryUnavailable
from ..postgres.log import PatientLogger
from ..postgres.pool_mode import PoolMode
from ..postgres.session import UNINTERRUPTED, Session, one_line
from ..postgres.wakeup import Stopped, Wakeup
from .counts import Counts, SharedCounts
from .session import NotifySession, look_up

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.outbox"))

MAX_PENDING = 10000  # different statements: a payload has at most 8 kB, so these have 80 MB
MAX_STATEMENTS = 1000  # looked at for one round trip

# a pooler that refuses a statement for a reason of its own is asked again so many times
MAX_REFUSALS = 5
CONTROL_SQL = "SELECT pg_notify('bus_alt_connection', '')"

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
        self._shared: SharedCounts | None = None
        with contextlib.suppress(OSError):
            self._shared = SharedCounts()
        self._reset()
        os.register_at_fork(before=self._before_fork, after_in_child=self._reset)
        atexit.register(self.close, timing.STOP_TIMEOUT)

    def _reset(self) -> None:
        # what the parent has stays the parent's: psycopg2 closes nothing in another process
        self.failures = 0  # attempts that failed
        self.dropped = self.refused = 0  # statements that were too many; that were wrong
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards the next two
        self._pending: dict[tuple, tuple] = {}  # statements, in the order of their commits
        self._in_flight: dict[tuple, tuple] = {}  # not confirmed yet
        self._sending = threading.Lock()  # guards all that follows
        self._session: NotifySession | None = None  # idle, or waiting for its answer
        self._used_at = 0.0
        self._addresses: Mapping[str, str] | None = None
        self._pool_mode = PoolMode(self._parameters, self._open_other, self._clock)
        self._limit = 0.0  # of waits, seconds
        self._alone = 0  # so many statements are sent one by one
        self._refusals: Counter = Counter()  # of statements
        self._rotation = 0  # which address of the pooler comes first
        times = timing.DEFAULT_TIMING._replace(max_delay=timing.OUTBOX_MAX_DELAY)
        self._backoff, self._failing = Backoff(times), False
        self._dropped_before = 0  # up to the last outage
        self._wakeup: Wakeup | None = None  # of the thread
        if self._shared:
            self._shared.begin()

    def _before_fork(self) -> None:
        """Close the idle session, so that no other process has its socket, too."""
        if self._sending.acquire(timeout=timing.COMMIT_TIMEOUT):
            try:
                if not self._in_flight:
                    self._close_session()
            finally:
                self._sending.release()

    def __repr__(self) -> str:
        return f"<Outbox: {self.unconfirmed} unconfirmed>"

    @property
    def unconfirmed(self) -> int:
        """How many statements are not confirmed yet."""
        return len(self._pending) + len(self._in_flight)

    def _publish(self) -> Counts:
        """Let the other processes of this server know the counts, and return them."""
        counts = Counts(self.unconfirmed, self.failures, self.refused, self.dropped)
        if self._shared:
            self._shared.publish(counts)
        return counts

    def counts_of_all(self) -> dict[int, Counts]:
        """Return what the processes of this server have counted, by their number."""
        own = self._publish()
        return {os.getpid(): own, **(self._shared.of_all() if self._shared else {})}

    def put(self, query, params=None) -> None:
        """Take a statement, and send it at once where the pooler takes it at once."""
        key, statement = (repr(query), repr(params)), (query, params)
        with self._lock:
            self._pending.setdefault(key, statement)
            too_many = len(self._pending) > MAX_PENDING
            if too_many:
                del self._pending[next(iter(self._pending))]
                self.dropped += 1
                too_many = self.dropped == self._dropped_before + 1
        if too_many:
            _logger.error("more than %d NOTIFY wait: the oldest are dropped", MAX_PENDING)
        if not self._send_now(key):
            self._need_thread()
        self._publish()

    def _send_now(self, key: tuple) -> bool:
        """Send what waits, in the thread that commits; tell whether it needs no other thread."""
        # another thread that commits may be sending this one as well
        if self._has_thread() or not self._sending.acquire(timeout=timing.COMMIT_TIMEOUT):
            return False
        try:
            if key not in self._pending and not self._in_flight:
                return True
            return not self._failing and self._attempt(at_once=True) is None
        finally:
            self._sending.release()

    def _has_thread(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _need_thread(self) -> None:
        """Let a thread send what waits, if there is none yet."""
        with self._lock:
            if self._has_thread() or not self.unconfirmed:
                return
            name, self._wakeup = "bus_alt_connection.outbox", self._make_wakeup()
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            with contextlib.suppress(RuntimeError):  # none to be had: the next ``put`` tries again
                thread.start()
                self._thread = thread
                return
            self._wakeup.close()
        if not threading.main_thread().is_alive():  # none begins while Python 3.12 ends
            self._send_until(time.monotonic() + timing.STOP_TIMEOUT)

    def close(self, seconds: float) -> None:
        """Send what is left, for at most so many seconds, and end."""
        deadline = time.monotonic() + seconds
        thread = self._thread
        if thread and thread.is_alive():
            while self.unconfirmed and time.monotonic() < deadline:
                time.sleep(0.001)
            self._wakeup.stop()
            thread.join(seconds)
        self._send_until(deadline)
        if self._sending.acquire(timeout=timing.COMMIT_TIMEOUT):
            self._close_session()
            self._sending.release()

    def _send_until(self, deadline: float) -> None:
        """Send what is left in this thread, until a time (monotonic seconds)."""
        while self.unconfirmed and time.monotonic() < deadline:
            if self._sending.acquire(timeout=timing.COMMIT_TIMEOUT):
                try:
                    self._attempt(at_once=True)
                finally:
                    self._sending.release()
            time.sleep(timing.COMMIT_TIMEOUT)

    # --- in the thread --------------------------------------------------------------

    def _run(self) -> None:
        wakeup, due = self._wakeup, 0.0
        with contextlib.suppress(Stopped), contextlib.closing(wakeup):
            while not self._is_done():
                try:
                    wait = due - self._clock()
                    if wait > 0:
                        wakeup.wait(wait)
                    else:
                        with self._sending:
                            due = self._attempt() or 0.0
                except Exception:  # no file descriptor, no memory to be had
                    time.sleep(timing.AFTER_UNEXPECTED_ERROR)

    def _is_done(self) -> bool:
        """Tell whether nothing waits; the next statement that does needs another thread."""
        with self._lock:
            done = not self.unconfirmed
            if done:
                self._thread = None
        self._publish()
        return done

    # --- sending, by the thread that has ``_sending`` ---------------------------------

    def _attempt(self, at_once: bool = False) -> float | None:
        """Send all that waits; return when the next attempt may begin, or None where all is sent.

        :param at_once: within some milliseconds: a commit waits for it
        """
        began = self._clock()
        if not self._in_flight and began - self._used_at >= timing.IDLE_TIMEOUT:
            self._close_session()
        for kept in (True, False):
            if kept and self._session is None:
                continue
            try:
                session = self._session or self._open_session(at_once)
                self._session, limit = session, self._limit_of(at_once)
                session.use(limit, UNINTERRUPTED if at_once else self._wakeup)
                if not self._send_pending(session):
                    if at_once:  # the thread goes on to wait for the answer
                        return began
                    raise psycopg2.OperationalError(f"no answer within {limit:g} s")
                self._keep_or_close(session)
                return None
            except BaseException as error:
                self._close_session()
                self._take_back()
                if not isinstance(error, Exception):
                    raise
                if not kept:  # else an idle session has ended
                    return self._on_failure(began, error)
        raise AssertionError  # the second time it returns or raises

    def _limit_of(self, at_once: bool) -> float:
        self._limit = timing.COMMIT_TIMEOUT if at_once else timing.ANSWER_TIMEOUT
        return self._limit

    def _open_session(self, at_once: bool) -> NotifySession:
        if not at_once:
            limit = timing.ANSWER_TIMEOUT
            return self._connect(self._parameters, limit, self._wakeup, self._rotation)
        self._addresses = self._addresses or look_up(self._parameters)
        limit = timing.COMMIT_CONNECT_TIMEOUT
        return self._connect(self._addresses, limit, UNINTERRUPTED, self._rotation)

    def _open_other(self, parameters, seconds: float, *args) -> Session:
        at_once = self._limit == timing.COMMIT_TIMEOUT  # to a far pooler, connecting takes longer
        limit = timing.COMMIT_CONNECT_TIMEOUT if at_once else self._limit
        return self._connect_other(self._addresses or parameters, min(seconds, limit), *args)

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session:
            session.close()

    def _take_back(self) -> None:
        with self._lock:
            self._pending, self._in_flight = {**self._in_flight, **self._pending}, {}

    def _on_failure(self, began: float, error: Exception) -> float:
        self._rotation += 1  # of two poolers the other one may answer
        self._addresses, self._alone = None, 0
        self.failures += 1
        if not self._failing:
            self._failing = True
            _logger.warning(SEND_FAILED, one_line(error))
        unavailable = isinstance(error, PrimaryUnavailable)
        return self._backoff.next_attempt_at(began, self._clock(), unavailable)

    def _keep_or_close(self, session: NotifySession) -> None:
        """Keep the session for the next commit, where it then holds no server connection."""
        self._used_at = self._clock()
        wakeup = UNINTERRUPTED if self._limit == timing.COMMIT_TIMEOUT else self._wakeup
        kept = False
        with contextlib.suppress(psycopg2.Error, OSError):
            kept = self._pool_mode.is_transaction(session, wakeup, self._rotation)
        if not kept:
            self._close_session()

    def _send_pending(self, session: NotifySession) -> bool:
        """Send all that waits; return False where an answer is not there in time.

        :raises psycopg2.Error: where the session fails
        """
        while True:
            try:
                if not self._in_flight and not self._send_some(session):
                    return True
                if not session.answered():
                    return False
            except Exception as error:
                if not session.is_alive(error):
                    raise
                self._on_refusal(session, error)
            else:
                self._confirm()

    def _send_some(self, session: NotifySession) -> bool:
        """Send some of what waits, in one round trip; return whether there was anything."""
        with self._lock:
            some = dict(islice(self._pending.items(), 1 if self._alone else MAX_STATEMENTS))
        number = len(some)
        try:
            if some:
                number = session.send(list(some.values()))
        finally:
            with self._lock:
                keys = [key for key in islice(some, number) if key in self._pending]
                self._in_flight = {key: self._pending.pop(key) for key in keys}
        return bool(some)

    def _on_refusal(self, session: NotifySession, error: Exception) -> None:
        """Send each alone where several together are refused; forget one that is wrong.

        :raises Exception: the error, where it may be the pooler's own fault
        """
        if len(self._in_flight) > 1:
            self._alone = len(self._in_flight)
            self._take_back()
            return
        if not session.is_permanent(error):
            (key,) = self._in_flight
            self._refusals[key] += 1
            if self._refusals[key] < MAX_REFUSALS:
                raise error
            session.run(CONTROL_SQL)
        self.refused += 1
        _logger.error("NOTIFY is refused, and dropped: %s", one_line(error))
        self._confirm()

    def _confirm(self) -> None:
        """Forget what was sent: its answer is there."""
        with self._lock:
            self._alone = max(0, self._alone - len(self._in_flight))
            for key in self._in_flight:
                self._refusals.pop(key, None)
            self._in_flight = {}
            over = not self._pending
        if over and self._failing:
            self._failing = False
            self._backoff.reset()
            _logger.info("NOTIFY is sent again")
        lost = self.dropped - self._dropped_before
        if over and lost:
            self._dropped_before = self.dropped
            _logger.error("%d NOTIFY were dropped", lost)
