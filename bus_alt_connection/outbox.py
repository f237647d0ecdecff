# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The outbox: takes the NOTIFY of a commit, and sends it without letting the commit wait.

* Where a session is open and idle, ``put`` writes the statement to its socket: it has left the
  process before the commit returns.
* Otherwise it waits, and a thread sends all that waits in one round trip, in the order of the
  commits, equal ones once. What is not confirmed is sent again, after pauses (``retry``): a NOTIFY
  that arrives twice only lets Odoo look twice.
* The session stays open only where a pooler lends server connections (``pooler``), which is looked
  at again every 10 minutes, and not without use for a minute: a firewall may have forgotten it.
* The log says when sending begins to fail, and when it works again.
"""

import atexit
import contextlib
import logging
import os
import threading
import time
from typing import Dict, Mapping, Optional, Sequence

import psycopg2

from .addresses import NobodyThere
from .pooler import Pooled, lends
from .retry import Retry
from .session import Session, one_line
from .times import TIMES
from .waker import LONG, Stopped, Waker

_logger = logging.getLogger(__name__)

# seconds
ANSWER = 10.0  # of connecting and of each answer: a pooler that is paused gives it late
LOOK = 1.0  # of a second session, to see whether the pooler lends
BELIEVED = 600.0  # what that look has shown
IDLE = 60.0  # of a session without use
STOP = 2.0  # of stopping

MOST = 10000  # different ones that wait: a payload has at most 8 kB, so these have 80 MB

WAITS = "NOTIFY cannot be sent: %s. Commits go on; trying again until it is sent."


class Outbox:
    """One for each process; a forked process begins with an empty one.

    :param parameters: libpq's, of the pooled connection
    """

    def __init__(self, parameters: Mapping[str, str]):
        self._parameters = parameters
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.close, STOP)

    def _begin(self) -> None:
        # what the parent has stays the parent's: psycopg2 closes nothing in another process
        self.failures = self.dropped = 0  # attempts that failed; statements that were too many
        self._waker, self._lock = Waker(), threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._waiting: Dict[tuple, tuple] = {}  # statements, in the order of their commits
        self._sending: Dict[tuple, tuple] = {}  # not confirmed yet
        self._idle: Optional[Pooled] = None  # what ``put`` may send on
        self._used = self._look = 0.0  # when last; when to look again whether the pooler lends
        self._lends = False
        self._turn = 0  # which address of the pooler comes first
        self._retry: Optional[Retry] = None  # while sending fails

    @property
    def waiting(self) -> int:
        """How many statements are not confirmed yet."""
        return len(self._waiting) + len(self._sending)

    def put(self, query, params=None) -> None:
        """Take a statement and return at once, whatever is wrong on the way."""
        key, statement = (repr(query), repr(params)), (query, params)
        with self._lock:
            if self._idle and not self.waiting:
                # that its session has ended is the thread's to find
                with contextlib.suppress(psycopg2.Error):
                    self._idle.send([statement])
                    self._sending[key] = statement
                    return  # the answer wakes the thread
            self._waiting.setdefault(key, statement)
            if len(self._waiting) > MOST:
                del self._waiting[next(iter(self._waiting))]
                self.dropped += 1
                if self.dropped == 1:
                    _logger.error("more than %d NOTIFY wait: the oldest are dropped", MOST)
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, daemon=True)
                with contextlib.suppress(RuntimeError):  # none to be had: the next one tries again
                    thread.start()
                    self._thread = thread
        self._waker.wake()

    def close(self, seconds: float) -> None:
        """Send what is left, for at most so many seconds, and end."""
        if self._thread and self._thread.is_alive():
            deadline = time.monotonic() + seconds
            while self.waiting and time.monotonic() < deadline:
                time.sleep(0.001)
            self._waker.stop()
            self._thread.join(seconds)

    # --- where Odoo's sending functions expect a connection, and its cursor ---------

    def cursor(self):
        return contextlib.nullcontext(self)  # what was put is sent; nothing is left to do

    def execute(self, query, params=None) -> None:
        # odoo.tools.SQL brings its own (17.0 on)
        own = (query.code, query.params) if hasattr(query, "code") else (query, params)
        self.put(*own)

    # --- in the thread --------------------------------------------------------------

    def _run(self) -> None:
        due = 0.0
        with contextlib.suppress(Stopped):
            while True:
                pause = due - time.monotonic() if self._waiting else LONG
                try:
                    if pause > 0:
                        self._waker.wait(pause)
                    else:
                        due = self._attempt()
                except Exception:  # no file descriptor, no memory to be had
                    time.sleep(1.0)

    def _attempt(self) -> float:
        """Send what waits, and return when the next attempt may begin."""
        began = time.monotonic()
        try:
            with Pooled(self._parameters, ANSWER, self._waker, self._turn) as session:
                self._use(session)
        except Exception as error:
            self._turn += 1  # of two poolers the other one may answer
            with self._lock:
                self._idle = None
                self._waiting, self._sending = {**self._sending, **self._waiting}, {}
            if self._waiting:  # else an idle session has ended
                self.failures += 1
                if not self._retry:
                    self._retry = Retry(TIMES)
                    _logger.warning(WAITS, one_line(error))
                return self._retry.failed(began, time.monotonic(), isinstance(error, NobodyThere))
        return 0.0

    def _use(self, session: Pooled) -> None:
        """Send on this session until it has to be closed.

        :raises psycopg2.Error: where it fails
        """
        self._used = time.monotonic()
        while time.monotonic() < self._used + IDLE:
            while self._waiting:
                with self._lock:
                    self._sending, self._waiting = self._waiting, {}
                self._send(session, list(self._sending.values()))
            if not self._may_stay(session):
                return
            with self._lock:
                self._idle = None if self._waiting else session
            answered = self._idle and self._waker.wait(1.0, session.connection)
            with self._lock:
                self._idle = None
            if answered or self._sending:
                self._send(session)

    def _send(self, session: Pooled, statements: Sequence[tuple] = ()) -> None:
        """Send these, or take the answer to what ``put`` has sent."""
        batches = [statements]
        while batches:
            batch = batches.pop(0)
            try:
                if batch:
                    session.send(batch)
                session.finish()
            except Exception as error:
                if not session.refuses(error):
                    raise
                if len(batch) > 1:
                    batches = [[one] for one in batch]  # none was taken: each goes alone
                else:
                    _logger.error("NOTIFY is refused, and dropped: %s", one_line(error))
        self._sending, self._used = {}, time.monotonic()
        if self._retry:
            self._retry = None
            _logger.info("NOTIFY is sent again")

    def _may_stay(self, session: Pooled) -> bool:
        """Tell whether a pooler lends server connections, so that this session holds none."""
        now = time.monotonic()
        if now >= self._look:
            self._look, self._lends = now + BELIEVED, False
            # who gets no connection in time is not where they are lent
            in_time = contextlib.suppress(psycopg2.Error)
            with in_time, Session(self._parameters, LOOK, self._waker, self._turn) as other:
                self._lends = lends(session, other)
        return self._lends
