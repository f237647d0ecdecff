# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The listener: keeps the inboxes of this process filled, whatever happens to PostgreSQL.

* It opens one session straight to PostgreSQL, runs LISTEN for each channel that an inbox asks for,
  and hands over what it hears.
* A session that breaks is replaced: at once, then after pauses that double (``retry``).
* Probes show whether it hears (``proof``); the log says so at each change (``state``).
* Once it hears again and the pooled connection works, Odoo looks for what it missed (``catchup``).
* While it is deaf but the pooled connection works, the bus looks every 10 to 15 s.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from typing import Optional, Tuple

import psycopg2

from .addresses import NobodyThere
from .catchup import CatchUp
from .direct import Direct
from .inbox import Inbox
from .parameters import Settings
from .probe import CHANNEL, Probe
from .proof import SEND, Proof
from .retry import Retry
from .session import Server, one_line
from .state import DEAF, State
from .times import TIMES, Times
from .waker import Stopped, Waker

_logger = logging.getLogger(__name__)

# why a session, or an attempt to open one, failed; a deaf one hears nothing, though it is there
LOST, REFUSED, NOT_THERE = "lost", "refused", "not_there"


class Deaf(Exception):
    """The session is there, but nothing is heard in it."""


class Listener(threading.Thread):
    """One session for all inboxes of this process; ends with the last of them.

    :param inbox: the first
    """

    def __init__(self, settings: Settings, inbox: Inbox, times: Times = TIMES):
        super().__init__(name="bus_alt_connection.listener", daemon=True)
        self.state = State(times)
        self.heard: Counter = Counter()  # notifications, by channel
        self.reconnects = dict.fromkeys((LOST, DEAF, REFUSED, NOT_THERE), 0)
        self.tls: Optional[str] = None  # the protocol of the session
        self._settings, self._times = settings, times
        self._retry, self._proof, self._catch_up = Retry(times), Proof(times), CatchUp()
        self._waker, self._lock = Waker(), threading.Lock()
        self._inboxes: Tuple[Inbox, ...] = ()  # replaced as a whole
        self._session: Optional[Direct] = None
        self._channels: Tuple[str, ...] = ()  # the session listens on
        self._probe: Optional[Probe] = None  # on its way
        self._met: Optional[Server] = None  # by the last probe
        self._turn = self._pooled_turn = 0  # which address comes first
        self.add(inbox)

    def add(self, inbox: Inbox) -> bool:
        """Fill this inbox too; return False where the listener has ended."""
        with self._lock:
            if self._waker.stopped or (self.ident is not None and not self.is_alive()):
                return False
            self._inboxes = (*self._inboxes, inbox)
        inbox.on_close = self.remove
        self._waker.wake()
        return True

    def remove(self, inbox: Inbox) -> None:
        """Forget this inbox, and end soon if it was the last one; never blocks."""
        with self._lock:
            self._inboxes = tuple(one for one in self._inboxes if one is not inbox)
            if not self._inboxes:
                self._waker.stop()

    def run(self):
        with contextlib.suppress(Stopped):
            while True:
                self._pause(self._attempt())
        self._waker.close()

    def _attempt(self) -> float:
        """Listen until that fails, and return when the next attempt is due."""
        began = time.monotonic()
        self.state.starting(", ".join(self._wanted()))
        direct = self._settings.direct
        try:
            self._tend()
            with Direct(direct, 0, self._waker, self._turn, self._tend) as self._session:
                self.tls = self._session.tls
                self._listen(self._session)
        except Exception as error:
            session, self._session = self._session, None
            return self._lost(began, error, session)

    def _lost(self, began: float, error: Exception, session: Optional[Direct]) -> float:
        now, reason = time.monotonic(), one_line(error)
        # an error of ours must not leave anybody deaf for good, nor fill the log
        if not isinstance(error, (psycopg2.Error, OSError, Deaf)) and self.state.name != DEAF:
            _logger.exception("%s: unexpected error, trying again", self.state.channels)
        if isinstance(error, Deaf):
            kind = DEAF
        elif session:
            kind, reason = LOST, f"{session.place}: {reason}"
        else:
            kind = NOT_THERE if isinstance(error, NobodyThere) else REFUSED
        self.reconnects[kind] += 1
        if kind != LOST:
            # the address after that one may be the primary
            self._turn += session.number + 1 if session else 1
        if self._channels:
            self._channels, self._probe = (), None
        for inbox in self._inboxes:
            inbox.missed = True
        # only the bus has something to do while it is deaf
        self._proof.lost(now, any(inbox.bus for inbox in self._inboxes))
        self.state.deaf(now, reason)
        return self._retry.failed(began, now, isinstance(error, NobodyThere))

    def _pause(self, due: float) -> None:
        """Do what is to be done until the next attempt is due."""
        while time.monotonic() < due:
            try:
                self._tend()
                self._waker.wait(min(due, self._next()) - time.monotonic())
            except Exception as error:  # no file descriptor, no thread to be had
                self.state.deaf(time.monotonic(), one_line(error))
                time.sleep(self._times.short_pause)

    # --- listening ----------------------------------------------------------------

    def _listen(self, session: Direct) -> None:
        """LISTEN, and hand over what is heard, until the session fails.

        :raises Deaf: where a probe is not heard
        :raises psycopg2.Error: where the session breaks
        """
        while True:
            wanted = self._wanted()
            if self._channels != wanted:
                session.listen([CHANNEL, *wanted])
                now = time.monotonic()
                self._retry.listening(now)
                self._proof.listening(now)
                self._channels, self._probe = wanted, None
                self.state.starting(", ".join(wanted))
            self._tend()
            heard = session.wait(self._next() - time.monotonic())
            if heard:
                self._hear(session, heard)

    def _wanted(self) -> Tuple[str, ...]:
        return tuple(sorted({inbox.channel for inbox in self._inboxes}))

    def _hear(self, session: Direct, heard: list) -> None:
        now = time.monotonic()
        took = self._proof.heard(now, [one.payload for one in heard if one.channel == CHANNEL])
        if self._proof.proven:
            self.state.listening(now, session.where(), took)
        for inbox in self._inboxes:
            inbox.deliver([one.payload for one in heard if one.channel == inbox.channel])
        self.heard.update(one.channel for one in heard if one.channel != CHANNEL)

    # --- proving and catching up, while listening and while deaf --------------------

    def _tend(self) -> None:
        """Do what is due.

        :raises Deaf: where a probe was not heard
        """
        now = time.monotonic()
        self.state.remind(now)
        if self._probe and self._probe.outcome:
            self._look_at_probe(now)
        todo = self._proof.todo(now)
        if todo == SEND:
            self._probe = Probe(self._settings.pooled, self._pooled_turn, self._waker.wake)
            self._proof.sending(now, self._probe.payload)
        elif todo:
            raise Deaf(self._session.why_not_heard(self._met, self._times.heard_within))
        self._catch_up.tell(now)

    def _look_at_probe(self, now: float) -> None:
        outcome, self._probe, session = self._probe.outcome, None, self._session
        missed = [inbox for inbox in self._inboxes if (inbox.missed if session else inbox.bus)]
        if isinstance(outcome, Exception):
            self._pooled_turn += 1
            if session:
                self.state.unknown(now, session.where(), one_line(outcome))
            self._proof.not_sent(now, bool(session and missed))
            return
        self._met = outcome
        self._proof.sent(now)
        # now that the pooled connection works, Odoo's loops can use it; while nothing is heard, a
        # long round is finished first
        if missed and (session or not self._catch_up.busy):
            self._catch_up.plan(now, missed)
            for inbox in missed:
                # between this look and the next LISTEN there may be more
                inbox.missed = inbox.missed or not session

    def _next(self) -> float:
        """Return the time at which ``_tend`` has something to do again."""
        return min(self.state.reminder, self._proof.next(), self._catch_up.next())
