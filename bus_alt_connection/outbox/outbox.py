# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The outbox: takes the NOTIFY of a commit, and sends it without letting the commit wait for long.

It is in memory (``pending``): what is not sent when the process ends is lost.

* ``put`` sends the statement itself (``sender``), and waits 50 ms for the answer, 300 ms where a
  session has to be opened, and as long as the name server takes. So it has left the process when
  the commit returns. The thread that commits does this: a new one would reserve 72 MB, its stack
  and its part of the heap, which ``limit_memory_soft`` counts.
* What is not confirmed by then waits, and a thread sends all that waits, in the order of the
  commits, equal ones once, as many in one round trip as a slow link takes. The thread ends once
  nothing waits.
* Before the process forks the session is closed; the new process begins with an empty outbox.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from typing import Callable, Iterator, Mapping

from ..config import timing
from ..postgres.wakeup import Stopped, Wakeup
from .counts import Counts, SharedCounts
from .pending import Pending
from .sender import Sender
from .session import NotifySession


class Outbox:
    """One for each process; a forked process begins with an empty one.

    :param parameters: libpq's, of the pooled connection
    :param connect: opens a session to send in; takes what ``NotifySession`` takes
    :param clock: tells the time, monotonic seconds
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        connect: Callable[..., NotifySession] = NotifySession,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._parameters, self._connect, self._clock = parameters, connect, clock
        self._shared = SharedCounts()
        self._reset()
        os.register_at_fork(before=self._before_fork, after_in_child=self._reset)
        atexit.register(self.close, timing.STOP_TIMEOUT)

    def _reset(self) -> None:
        # what the parent has stays the parent's: psycopg2 closes nothing in another process
        self._pending = Pending()
        self._sender = Sender(self._parameters, self._pending, self._connect, self._clock)
        self._sending = threading.Lock()  # guards _sender
        self._starting = threading.Lock()  # guards the next two
        self._thread: threading.Thread | None = None
        self._wakeup: Wakeup | None = None  # of the thread

    @property
    def unconfirmed(self) -> int:
        """How many statements are not confirmed yet."""
        return len(self._pending)

    @property
    def counts(self) -> Counts:
        """What this process has counted."""
        sender, pending = self._sender, self._pending
        return Counts(len(pending), sender.failures, sender.refused, pending.dropped)

    def counts_of_all(self) -> dict[int, Counts]:
        """Return what this process and those forked with it have counted, by pid."""
        self._publish()
        return {**self._shared.of_all(), os.getpid(): self.counts}

    def _publish(self) -> None:
        """Let these processes know the counts."""
        self._shared.publish(self.counts)

    def put(self, query, params=None) -> None:
        """Take a statement, and send it now if the pooler answers in time; else a thread does."""
        self._pending.add(query, params)
        sent = False
        try:
            sent = self._send_now()
        finally:  # whatever ends this thread, another one sends it
            if not sent:
                self._need_thread()
        self._publish()

    def _send_now(self) -> bool:
        """Send what waits, in the thread that commits; tell whether it needs no other thread."""
        if self._has_thread():
            return False
        began = self._clock()
        with self._turn() as sender:
            if not sender:
                return False
            # another thread that commits may have sent this one as well
            return not self.unconfirmed or (not sender.is_failing and sender.send_now(began))

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Sender | None]:
        """Have the sender for a moment; None where another thread has it for too long."""
        has_it = self._sending.acquire(timeout=timing.COMMIT_TIMEOUT)
        try:
            yield self._sender if has_it else None
        finally:
            if has_it:
                self._sending.release()

    def _before_fork(self) -> None:
        """Close the idle session, so that no other process has its socket, too."""
        with self._turn() as sender:
            if sender and not self._pending.in_flight:
                sender.close_session()

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
        with self._turn() as sender:
            if sender:
                sender.close_session()

    def _send_until(self, deadline: float) -> None:
        """In this thread, send what is left, until a time (monotonic seconds)."""
        while self.unconfirmed and time.monotonic() < deadline:
            with self._turn() as sender:
                if sender:
                    sender.send_now(self._clock())
            time.sleep(timing.COMMIT_TIMEOUT)

    # --- the thread -----------------------------------------------------------------

    def _has_thread(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _need_thread(self) -> None:
        """Let a thread do what is left to do, if there is none yet."""
        with self._starting:
            if self._has_thread() or self._sender.is_done:
                return
            name = "bus_alt_connection.outbox"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            # no thread or file descriptor to be had: the next ``put`` tries again
            with contextlib.suppress(RuntimeError, OSError), contextlib.ExitStack() as on_error:
                self._wakeup = Wakeup()
                on_error.callback(self._wakeup.close)
                thread.start()
                on_error.pop_all()
                self._thread = thread
                return
        if not threading.main_thread().is_alive():  # from Python 3.12 on no thread starts then
            self._send_until(time.monotonic() + timing.STOP_TIMEOUT)

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
                            due = self._sender.send(wakeup) or 0.0
                except Exception:  # no file descriptor, no memory to be had
                    time.sleep(timing.AFTER_UNEXPECTED_ERROR)

    def _is_done(self) -> bool:
        """Tell whether nothing is left to do; what comes later needs another thread."""
        with self._starting:
            done = self._sender.is_done
            if done:
                self._thread = None
        self._publish()
        return done
