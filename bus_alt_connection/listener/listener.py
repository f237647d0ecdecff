# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The listener: keeps its inboxes filled, whatever happens to PostgreSQL.

They are those of this process and, where it leads (``sharing``), of other processes.

* It opens one direct session, runs LISTEN for each channel that an inbox asks for, and dispatches
  what arrives.
* A session that breaks is replaced: at once, then after delays that double (``backoff``).
* Probes show whether it receives (``probe``); the log has each change (``status``).
* Once it receives again and the pooled connection works, Odoo looks for what it missed
  (``catch_up``).
* While it is deaf but the pooled connection works, the bus looks every 10 to 15 s.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from typing import Callable

import psycopg2

from ..config.parameters import Settings
from ..config.timing import AFTER_UNEXPECTED_ERROR, DEFAULT_TIMING, Timing
from ..postgres.backoff import Backoff
from ..postgres.hosts import PrimaryUnavailable
from ..postgres.log import PatientLogger
from ..postgres.session import one_line
from ..postgres.wakeup import Stopped, Wakeup
from .catch_up import CatchUp
from .inbox import Inbox
from .inboxes import AnyInbox, Inboxes
from .probe import PROBE_CHANNEL, Probe, Prober, send_probe
from .session import ListenSession, ProbeTimeout, Router, by_channel, classify
from .status import Failure, ListenerStatus, State

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.listener"))


class Listener(threading.Thread):
    """One session for all inboxes; ends with the last one of this process.

    :param inbox: the first
    :param connect: opens a session; takes what ``Router.open`` takes
    :param send_probe: sends a probe on the pooled connection
    :param wakeup: ends the waits of this thread; a ``LeaderWakeup`` where it feeds other processes
    :param clock: tells the time, monotonic seconds
    :param on_end: is given each inbox of this process that is left when the listener ends
    """

    leads = True  # the session is this process's own

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        timing: Timing = DEFAULT_TIMING,
        connect: Callable[..., ListenSession] | None = None,
        send_probe: Callable[..., Probe] = send_probe,
        wakeup: Wakeup | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_end: Callable[[Inbox], object] = lambda inbox: None,
    ):
        super().__init__(name="bus_alt_connection.listener", daemon=True)
        self.status = ListenerStatus(timing)
        self.notification_counts: Counter = Counter()  # by channel
        self.failure_counts = dict.fromkeys(Failure, 0)
        self.tls: str | None = None  # the protocol of the session
        self._settings, self._timing, self._clock = settings, timing, clock
        self._connect, self._on_end = connect or Router(settings.pooled).open, on_end
        self._wakeup = wakeup or Wakeup()
        self._backoff, self._catch_up = Backoff(timing), CatchUp(wake=self._wakeup.wake)
        self._prober = Prober(settings.pooled, timing, send_probe, self._wakeup.wake)
        self._proven_at = clock()  # what was sent before has arrived
        self.inboxes = Inboxes()
        self._session: ListenSession | None = None
        self._channels: tuple[str, ...] = ()  # the session listens on
        self._rotation = 0  # which address comes first
        self.add(inbox)

    @property
    def followers(self) -> int:
        """How many inboxes of other processes it fills."""
        return self.inboxes.remote_count()

    @property
    def channels(self) -> list[str]:
        """Channels that the processes of this server listen on."""
        return self.inboxes.channels_of(None)

    def add(self, inbox: AnyInbox) -> bool:
        """Fill this inbox too; return False where the listener has ended."""
        ended = self._wakeup.stopped or (self.ident is not None and not self.is_alive())
        if ended or not self.inboxes.add(inbox):
            return False
        inbox.on_close = self.remove
        inbox.missed_since = inbox.missed_since or self._clock()
        self._wakeup.wake()
        return True

    def remove(self, inbox: AnyInbox) -> None:
        """Forget this inbox, and end soon if it was the last of this process; never blocks."""
        if self.inboxes.remove(inbox):
            self._wakeup.stop()

    def run(self):
        with contextlib.closing(self._wakeup), contextlib.suppress(Stopped):
            while True:
                self._wait_until(self._listen_until_failure())
        for inbox in self.inboxes.close():
            self._on_end(inbox)

    def _listen_until_failure(self) -> float:
        """Connect and listen, until that fails; return when the next attempt is due."""
        began = self._clock()
        self.status.mark_starting(self.inboxes.channels())
        where = self._settings.listener, self._wakeup, self._rotation, self._run_due
        try:
            self._run_due()
            with self._connect(*where) as self._session:
                self.tls = self._session.tls
                self._listen(self._session)
        except Exception as error:
            session, self._session = self._session, None
            return self._on_failure(began, error, session)

    def _on_failure(self, began: float, error: Exception, session: ListenSession | None) -> float:
        """Take note of a failure and return when the next attempt is due."""
        now = self._clock()
        # a bug in this addon must neither stop the listener for good nor fill the log
        expected = isinstance(error, (psycopg2.Error, OSError, ProbeTimeout))
        if not expected and self.status.state is not State.DEAF:
            _logger.exception("%s: unexpected error, trying again", ", ".join(self.status.channels))
        failure, reason = classify(error, session)
        self.failure_counts[failure] += 1
        if failure is not Failure.LOST:
            # the address after that one may be the primary
            self._rotation += 1 + (session.skipped if session else 0)
        self._prober.lost(now, bool(self._channels), bool(self.inboxes.while_deaf()))
        self._channels = ()
        self.inboxes.miss(self._proven_at)
        self.status.mark_deaf(now, reason, error)
        return self._backoff.next_attempt_at(began, now, isinstance(error, PrimaryUnavailable))

    def _wait_until(self, due: float) -> None:
        """Do what is to be done until the next attempt is due."""
        while self._clock() < due:
            try:
                self._run_due()
                self._wakeup.wait(min(due, self._next_due()) - self._clock())
            except Exception as error:  # no file descriptor, no thread to be had
                self.status.mark_deaf(self._clock(), one_line(error), error)
                time.sleep(AFTER_UNEXPECTED_ERROR)

    # --- listening ----------------------------------------------------------------

    def _listen(self, session: ListenSession) -> None:
        """LISTEN, and dispatch what arrives, until the session fails.

        :raises ProbeTimeout: where a probe does not arrive
        :raises psycopg2.Error: where the session breaks
        """
        while True:
            unproven, wanted = self.inboxes.take_joined(), self.inboxes.channels()
            if not set(wanted) <= set(self._channels):
                wanted = tuple(sorted({*wanted, *self._channels}))
                session.listen([PROBE_CHANNEL, *wanted])
                self._backoff.listening(self._clock())
                self._channels, unproven = wanted, True
                self.status.channels = wanted
            if unproven:
                self._prober.listening(self._clock())
            self._run_due()
            notifications = session.wait(self._next_due() - self._clock())
            if notifications:
                self._dispatch(session, notifications)

    def _dispatch(self, session: ListenSession, notifications: list) -> None:
        now = self._clock()
        payloads = by_channel(notifications)
        round_trip = self._prober.liveness.received(now, payloads.pop(PROBE_CHANNEL, []))
        if self._prober.liveness.proven:
            self._proven_at = now
            self.status.mark_listening(now, session.describe(), round_trip)
        self.inboxes.deliver(payloads)
        self.notification_counts.update({name: len(arrived) for name, arrived in payloads.items()})

    # --- probes and catching up, while listening and while deaf ----------------------

    def _run_due(self) -> None:
        """Do what is due.

        :raises ProbeTimeout: where a probe did not arrive
        """
        now = self._clock()
        self.status.remind(now)
        missed = self.inboxes.missed(self._channels)
        answer = self._prober.take_answer(now, early=bool(self._session and missed))
        if answer and not answer.exception():
            # the pooled connection works, so Odoo's loops can use it
            if self._session:
                self._catch_up.schedule(now, missed)
            else:
                self._catch_up.schedule_while_deaf(now, self.inboxes.while_deaf())
        elif answer and self._session:
            self.status.mark_unknown(now, self._session.describe(), one_line(answer.exception()))
        self._prober.run_due(now, self._session)
        self._catch_up.deliver_due(now)

    def _next_due(self) -> float:
        """Return the time at which ``_run_due`` has something to do again."""
        due = self._prober.liveness.next_due(), self._catch_up.next_due()
        return min(self.status.reminder, *due)
