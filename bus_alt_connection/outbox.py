# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The outbox: takes the NOTIFY of a commit, and sends it without letting the commit wait.

* Where a session is open and idle, ``put`` writes the statement to its socket: it has left the
  process before the commit returns.
* Otherwise it waits, and a thread sends all that waits in one round trip, in the order of the
  commits, equal ones once. What is not confirmed is sent again (``retry``): a NOTIFY that arrives
  twice only lets Odoo look twice.
* The session stays open only where a pooler lends server connections, which is looked at again every
  10 minutes, and closes after a minute without use: a firewall may have forgotten it.
* The log says when sending begins to fail, and when it works again.
"""

import atexit
import contextlib
import logging
import os
import socket
import threading
import time
from typing import Callable, Collection, Dict, Mapping, Optional

import psycopg2

from .addresses import NobodyThere
from .pooler import lends
from .retry import Retry
from .session import Session, one_line
from .times import Times
from .waker import LONG, Stopped, Waker

_logger = logging.getLogger(__name__)

# seconds
ANSWER = 10.0  # of connecting and of each answer: a pooler that is paused gives it late
LOOK = 1.0  # of each answer while we look whether a pooler lends
BELIEVED = 600.0  # what that look has shown
IDLE = 60.0  # of a session without use
STOP = 2.0  # of stopping
UNANSWERED = 2000  # milliseconds until the kernel gives up who confirms no packet

MOST = 10000  # different ones that wait: a payload has at most 8 kB, so these have 80 MB

TIMES = Times()

WAITS = "NOTIFY cannot be sent: %s. Commits go on; trying again until it is sent."
WORKS = "NOTIFY is sent again, after %.1f s"
REFUSED = "NOTIFY is refused, and dropped: %s"
FULL = "the oldest NOTIFY is dropped: %d different ones wait"


class Cursor:
    """Stands where Odoo's sending functions expect a connection and its cursor.

    :param put: takes each statement
    """

    def __init__(self, put: Callable):
        self._put = put

    def cursor(self) -> "Cursor":
        return self

    def execute(self, query, params=None) -> None:
        """Take a statement; ``odoo.tools.SQL`` brings its own parameters (17.0 on)."""
        if hasattr(query, "code"):
            query, params = query.code, query.params
        self._put(query, params)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        """Nothing is left to do: what was put is sent."""


class Pooled(Session):
    """A session on which a statement is written now, and its answer taken later."""

    def meet(self) -> None:
        # on the socket itself: the oldest libpq has no keyword for it; a socket in the file
        # system refuses it
        with contextlib.suppress(OSError, AttributeError):
            with socket.socket(fileno=os.dup(self.connection.fileno())) as one:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED)

    def post(self, statements: Collection[tuple]) -> None:
        """Send these (query, parameters) as one transaction, without waiting for the answer."""
        self._cursor = self.connection.cursor()  # psycopg2 wants it until the answer is there
        self._cursor.execute(b"; ".join(self._cursor.mogrify(*one) for one in statements))

    def answer(self) -> None:
        """Wait for the answer, if there is one to come.

        :raises psycopg2.Error: where it is an error, or the session has ended
        """
        self._finish()

    def within(self, seconds: float) -> None:
        """Set the timeout of the statements that follow."""
        self._timeout = seconds

    def refused(self, error: Exception) -> bool:
        """Tell whether the statement itself is to blame, so that it is no use to send it again."""
        path = (psycopg2.OperationalError, psycopg2.InterfaceError, OSError, Stopped)
        # class 25 of PostgreSQL's error codes: a standby that may be promoted
        standby = str(getattr(error, "pgcode", "")).startswith("25")
        return not (isinstance(error, path) or self.connection.closed or standby)


class Outbox:
    """One for each process; a forked process begins with an empty one.

    :param parameters: libpq's, of the pooled connection
    """

    def __init__(self, parameters: Mapping[str, str], times: Times = TIMES):
        self._parameters, self._times = parameters, times
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.close, STOP)

    def _begin(self) -> None:
        # what the parent has stays the parent's: psycopg2 closes nothing in another process
        self.failures = 0  # to send what waited
        self._waker, self._changed = Waker(), threading.Condition()
        self._thread: Optional[threading.Thread] = None
        self._waiting: Dict[tuple, tuple] = {}  # statements, in the order of their commits
        self._sending: Dict[tuple, tuple] = {}  # not confirmed yet
        self._idle: Optional[Pooled] = None  # ready for ``put`` to write on
        self._used = self._look = 0.0  # when last; when to look again whether the pooler lends
        self._lends = self._singly = self._full = False
        self._trouble, self._retry = None, Retry(self._times)  # since when nothing is sent

    @property
    def waiting(self) -> int:
        """How many statements are not confirmed yet."""
        return len(self._waiting) + len(self._sending)

    def put(self, query, params=None) -> None:
        """Take a statement and return at once; what is wrong on the way is never raised here."""
        key, statement = (repr(query), repr(params)), (query, params)
        with self._changed:
            if self._idle and not self.waiting:
                # that the session has ended is the thread's to find
                with contextlib.suppress(psycopg2.OperationalError, psycopg2.InterfaceError):
                    self._idle.post([statement])
                    self._sending[key], self._used = statement, time.monotonic()
                    return  # its answer wakes the thread
            self._waiting.setdefault(key, statement)
            if len(self._waiting) > MOST:
                del self._waiting[next(iter(self._waiting))]
                if not self._full:
                    _logger.error(FULL, MOST)
                self._full = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.name = "bus_alt_connection.outbox"
                self._thread.start()
        self._waker.wake()

    def flush(self, seconds: float) -> bool:
        """Wait until all is sent, at most so many seconds, and tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting, seconds)

    def close(self, seconds: float) -> None:
        """Send what is left, for at most so many seconds, and end."""
        if self._thread and not self._waker.stopped:
            self.flush(seconds)
            self._waker.stop()
            self._thread.join(seconds)

    # --- in the thread --------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(Stopped):
            while True:
                while not self._waiting:
                    self._waker.wait(LONG)
                due = self._attempt()
                while time.monotonic() < due:
                    self._waker.wait(due - time.monotonic())

    def _attempt(self) -> float:
        """Send what waits, and return when to begin the next attempt."""
        self._retry.began(time.monotonic())
        try:
            with Pooled(self._parameters, self._waker, ANSWER) as session:
                self._use(session)
            return 0.0
        except Stopped:
            raise
        except Exception as error:
            return self._failed(error)
        finally:
            with self._changed:
                self._idle = None

    def _failed(self, error: Exception) -> float:
        self._put_back()
        if not self._waiting:
            return 0.0  # an idle session has ended
        now = time.monotonic()
        self.failures += 1
        if self._trouble is None:
            self._trouble = now
            _logger.warning(WAITS, one_line(error))
        return self._retry.failed(now, isinstance(error, NobodyThere))

    def _use(self, session: Pooled) -> None:
        """Send on this session until it has to be closed.

        :raises psycopg2.Error: where it fails
        """
        self._used = time.monotonic()
        while time.monotonic() < self._used + IDLE:
            while self._waiting:
                self._confirm(session, self._take())
            if not self._may_stay(session):
                return
            with self._changed:
                if self._waiting:
                    continue
                self._idle = session
            answered = self._waker.wait(1.0, session.connection)
            with self._changed:
                self._idle = None
            if answered or self._sending:
                self._confirm(session)

    def _take(self) -> Collection[tuple]:
        with self._changed:
            keys = list(self._waiting)[: 1 if self._singly else None]
            self._sending = {key: self._waiting.pop(key) for key in keys}
        self._used = time.monotonic()
        return self._sending.values()

    def _confirm(self, session: Pooled, statements: Collection[tuple] = ()) -> None:
        """Wait until what is being sent is confirmed.

        :param statements: to write before
        """
        try:
            if statements:
                session.post(statements)
            session.answer()
        except Exception as error:
            if not session.refused(error):
                raise
            self._singly = len(self._sending) > 1
            if self._singly:
                self._put_back()  # PostgreSQL has taken none: the good ones go alone
                return
            _logger.error(REFUSED, one_line(error))
        if self._trouble is not None:
            _logger.info(WORKS, time.monotonic() - self._trouble)
            self._trouble, self._retry = None, Retry(self._times)
        with self._changed:
            self._sending = {}
            if not self._waiting:
                self._singly = self._full = False
                self._changed.notify_all()

    def _put_back(self) -> None:
        with self._changed:
            self._waiting, self._sending = {**self._sending, **self._waiting}, {}

    def _may_stay(self, session: Pooled) -> bool:
        """Tell whether a pooler lends server connections, so that this session holds none."""
        now = time.monotonic()
        if now >= self._look:
            self._look, self._lends = now + BELIEVED, False
            # who gets no connection in time is not where they are lent
            with contextlib.suppress(psycopg2.Error):
                with Session(self._parameters, self._waker, LOOK) as other:
                    session.within(LOOK)
                    self._lends = lends(session, other)
                    session.within(ANSWER)
        return self._lends
