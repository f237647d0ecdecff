# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The listener: keeps the inboxes of this process filled, whatever happens to PostgreSQL.

* It opens one direct session, runs LISTEN for each channel that an inbox asks for, and dispatches
  what arrives.
* A session that breaks is replaced: at once, then after delays that double (``backoff``).
* Probes show whether it receives (``probe_schedule``); the log has each change (``status``).
* Once it receives again and the pooled connection works, Odoo looks for what it missed
  (``catch_up``).
* While it is deaf but the pooled connection works, the bus looks every 10 to 15 s.
"""

from __future__ import annotations

import contextlib
import enum
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
from ..postgres.session import ServerIdentity, one_line
from ..postgres.wakeup import Stopped, Wakeup
from .catch_up import CatchUp
from .inbox import Inbox
from .probe import CHANNEL, Probe, send_probe
from .probe_schedule import Action, ProbeSchedule
from .session import ListenSession, ProbeTimeout, RoutedConnect
from .status import ListenerStatus, State

_logger = logging.getLogger("odoo.addons.bus_alt_connection.listener")


class Failure(enum.Enum):
    """Why a session, or an attempt to open one, failed; as the metrics name it."""

    LOST = "lost"
    DEAF = "deaf"  # it received nothing, though it was there
    REFUSED = "refused"
    NOT_THERE = "not_there"


class Listener(threading.Thread):
    """One session for all inboxes of this process; ends with the last of them.

    :param inbox: the first
    :param connect: opens a session; takes what ``ListenSession`` takes
    :param send_probe: sends a probe on the pooled connection
    :param wakeup: ends the waits of this thread
    :param clock: tells the time, monotonic seconds
    """

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        timing: Timing = DEFAULT_TIMING,
        connect: Callable[..., ListenSession] | None = None,
        send_probe: Callable[..., Probe] = send_probe,
        wakeup: Wakeup | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__(name="bus_alt_connection.listener", daemon=True)
        self.status = ListenerStatus(timing)
        self.notification_counts: Counter = Counter()  # by channel
        self.failure_counts = dict.fromkeys(Failure, 0)
        self.tls: str | None = None  # the protocol of the session
        self._settings, self._timing, self._clock = settings, timing, clock
        self._connect = connect or RoutedConnect(settings.pooled)
        self._send_probe = send_probe
        self._wakeup = wakeup or Wakeup()
        self._backoff, self._catch_up = Backoff(timing), CatchUp(wake=self._wakeup.wake)
        self._probe_schedule = ProbeSchedule(timing)
        self._proven_at = clock()  # what was sent before has arrived
        self._lock = threading.Lock()  # guards _inboxes, which is replaced as a whole
        self._inboxes: tuple[Inbox, ...] = ()
        self._session: ListenSession | None = None
        self._channels: tuple[str, ...] = ()  # the session listens on
        self._probe: Probe | None = None  # on its way
        self._notified_server: ServerIdentity | None = None  # took the last probe
        self._rotation = self._pooled_rotation = 0  # which address comes first
        self.add(inbox)

    def __repr__(self) -> str:
        return f"<Listener {self.status.channels} {self.status.state.value} {self._session}>"

    def add(self, inbox: Inbox) -> bool:
        """Fill this inbox too; return False where the listener has ended."""
        with self._lock:
            if self._wakeup.stopped or (self.ident is not None and not self.is_alive()):
                return False
            self._inboxes = (*self._inboxes, inbox)
        inbox.on_close, inbox.missed_since = self.remove, self._clock()
        self._wakeup.wake()
        return True

    def remove(self, inbox: Inbox) -> None:
        """Forget this inbox, and end soon if it was the last one; never blocks."""
        with self._lock:
            self._inboxes = tuple(kept for kept in self._inboxes if kept is not inbox)
            if not self._inboxes:
                self._wakeup.stop()

    def run(self):
        with contextlib.suppress(Stopped):
            while True:
                self._wait_until(self._listen_until_failure())
        self._wakeup.close()

    def _listen_until_failure(self) -> float:
        """Connect and listen, until that fails; return when the next attempt is due."""
        began = self._clock()
        self.status.mark_starting(self._wanted_channels())
        listener = self._settings.listener
        try:
            self._run_due()
            with self._connect(
                listener, 0, self._wakeup, self._rotation, self._run_due
            ) as self._session:
                self.tls = self._session.tls
                self._listen(self._session)
        except Exception as error:
            session, self._session = self._session, None
            return self._on_failure(began, error, session)

    def _on_failure(self, began: float, error: Exception, session: ListenSession | None) -> float:
        """Take note of a failure and return when the next attempt is due."""
        now, reason = self._clock(), one_line(error)
        unavailable = isinstance(error, PrimaryUnavailable)
        # a bug in this addon must neither stop the listener for good nor fill the log
        expected = isinstance(error, (psycopg2.Error, OSError, ProbeTimeout))
        if not expected and self.status.state is not State.DEAF:
            _logger.exception("%s: unexpected error, trying again", ", ".join(self._channels))
        if isinstance(error, ProbeTimeout):
            failure = Failure.DEAF
        elif session:
            failure, reason = Failure.LOST, f"{session.endpoint}: {reason}"
        else:
            failure = Failure.NOT_THERE if unavailable else Failure.REFUSED
        self.failure_counts[failure] += 1
        if failure is not Failure.LOST:
            # the address after that one may be the primary
            self._rotation += session.address_index + 1 if session else 1
        if self._channels:
            self._channels, self._probe = (), None
        for inbox in self._inboxes:
            if not inbox.needs_catch_up:
                inbox.needs_catch_up, inbox.missed_since = True, self._proven_at
        self._probe_schedule.lost(now, bool(self._buses()))
        self.status.mark_deaf(now, reason, error)
        return self._backoff.next_attempt_at(began, now, unavailable)

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
            wanted = self._wanted_channels()
            if self._channels != wanted:
                session.listen([CHANNEL, *wanted])
                now = self._clock()
                self._backoff.listening(now)
                self._probe_schedule.listening(now)
                self._channels, self._probe = wanted, None
                self.status.mark_starting(wanted)
            self._run_due()
            notifications = session.wait(self._next_due() - self._clock())
            if notifications:
                self._dispatch(session, notifications)

    def _wanted_channels(self) -> tuple[str, ...]:
        return tuple(sorted({inbox.channel for inbox in self._inboxes}))

    def _dispatch(self, session: ListenSession, notifications: list) -> None:
        now = self._clock()
        payloads: dict[str, list] = {}
        for notification in notifications:
            payloads.setdefault(notification.channel, []).append(notification.payload)
        round_trip = self._probe_schedule.received(now, payloads.pop(CHANNEL, []))
        if self._probe_schedule.proven:
            self._proven_at = now
            self.status.mark_listening(now, session.describe(), round_trip)
        for inbox in self._inboxes:
            inbox.deliver(payloads.get(inbox.channel, []))
        for channel, arrived in payloads.items():
            self.notification_counts[channel] += len(arrived)

    # --- probes and catching up, while listening and while deaf ----------------------

    def _run_due(self) -> None:
        """Do what is due.

        :raises ProbeTimeout: where a probe did not arrive
        """
        now = self._clock()
        self.status.remind(now)
        if self._probe and self._probe.taken.done():
            taken, self._probe = self._probe.taken, None
            if self._session:
                self._on_probe_while_listening(now, self._session, taken)
            else:
                self._on_probe_while_deaf(now, taken)
        action = self._probe_schedule.next_action(now)
        if action is Action.SEND:
            pooled = self._settings.pooled
            self._probe = self._send_probe(pooled, self._pooled_rotation, self._wakeup.wake)
            self._probe_schedule.sending(now, self._probe.payload)
        elif action is Action.RECONNECT:
            timeout = self._timing.probe_timeout
            raise self._session.explain_missed_probe(self._notified_server, timeout)
        self._catch_up.deliver_due(now)

    def _on_probe_while_listening(self, now: float, session: ListenSession, taken) -> None:
        missed = [inbox for inbox in self._inboxes if inbox.needs_catch_up]
        if taken.exception():
            self._pooled_rotation += 1
            self.status.mark_unknown(now, session.describe(), one_line(taken.exception()))
            self._probe_schedule.not_sent(now, early=bool(missed))
            return
        self._notified_server = taken.result()
        self._probe_schedule.sent(now)
        if missed:  # the pooled connection works, so Odoo's loops can use it
            self._catch_up.schedule(now, missed)

    def _on_probe_while_deaf(self, now: float, taken) -> None:
        if taken.exception():
            self._pooled_rotation += 1
            self._probe_schedule.not_sent(now, early=False)
            return
        self._notified_server = taken.result()
        self._probe_schedule.sent(now)
        buses = self._buses()
        # a long round is finished first
        self._catch_up.schedule(now, buses, only_missed=self._catch_up.busy)
        for inbox in buses:
            inbox.needs_catch_up = True  # until it listens, there may be more

    def _buses(self) -> list[Inbox]:
        """Return the inboxes whose function of Odoo has something to do while deaf."""
        return [inbox for inbox in self._inboxes if inbox.catch_up_while_deaf]

    def _next_due(self) -> float:
        """Return the time at which ``_run_due`` has something to do again."""
        return min(self.status.reminder, self._probe_schedule.next_due(), self._catch_up.next_due())
