# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The watch: keeps one listener hearing, whatever happens to PostgreSQL or to the network.

* It connects, runs LISTEN and hands over to Odoo's loop what it hears.
* A session that breaks is replaced: at once, then after pauses that double.
* Once a new session listens and the normal path works, Odoo looks for what it missed.
* Who hears nothing for a while sends a probe on the normal path and expects to hear it.
  One probe is heard by all listeners, so a whole fleet sends about one every 10 s.
* While a bus listener is deaf but the normal path works, Odoo looks every 10 to 15 s.
"""

import logging
import random
import threading
import time
from collections import deque
from typing import Mapping, Optional, Tuple

import psycopg2

from . import catchup, paths, payload, seams, session, settings
from .direct import Direct, connect, one_line
from .listener import Inbox
from .probe import Probe
from .state import DEAF, STARTING, UNKNOWN, State

_logger = logging.getLogger(__name__)

# all in seconds
FIRST_PAUSE = 0.5
LAST_PAUSE = 30.0
LAST_PAUSE_AT_FIRST = 1.0  # for a minute, and as long as no primary is there to be bothered
AT_FIRST = 60.0
HEARD_WITHIN = 10.0  # a probe that was sent
ALIVE_AFTER = 15.0  # of silence, the server has to answer a query,
ANSWERS_WITHIN = 5.0
RETRY = 10.0, 15.0  # the normal path; also between two looks of Odoo while it is deaf
RETRY_SOON = 0.5, 1.0  # the normal path, while somebody waits for what was missed

NOT_FROM_ODOO = (
    "%s: ignored a notification that is not a JSON list of channels: it is not from Odoo"
)
NO_SUBSCRIPTIONS = (
    "bus_alt_connection found no %s.%s: what is sent while nobody listens will not be shown (%s)"
)

# the watches of this process
running: set = set()


class Deaf(Exception):
    """The session is there, but nothing is heard in it."""


class Watch(threading.Thread):
    """The watch over one listener, running until ``stop``.

    :param row: which listener of Odoo
    :param database: the database in which it listens
    :param found: what ``settings.read`` returned
    :param inbox: where Odoo's loop waits
    :param statements: to be run in each session: Odoo's LISTEN
    """

    def __init__(
        self,
        row: seams.Listener,
        database: str,
        found: Mapping[str, settings.Value],
        inbox: Inbox,
        statements: list,
    ):
        super().__init__(name=f"bus_alt_connection.{row.channel}", daemon=True)
        self.state = State(row.channel)
        self._row = row
        self._channel = seams.CHANNELS[row.channel]
        self._database = database
        self._found = found
        self._inbox = inbox
        self._statements = statements
        self._waker = session.Waker()
        self._pause = FIRST_PAUSE
        self._turn = 0  # which place is tried first
        self._probe = None
        self._probe_due = float("inf")
        self._proved = False
        self._answered = 0.0
        self._to_catch_up = False
        self._batches: deque = deque()
        self._next_batch = 0.0
        self._warned = False

    def stop(self) -> None:
        """End the watch and its session soon; never blocks."""
        self._waker.stop()

    def run(self):
        running.add(self)
        try:
            while True:
                try:
                    self._attempt()
                except session.Stopped:
                    break
                except Exception as error:
                    # an error of ours must not leave the listener deaf for good
                    _logger.exception("%s: unexpected error, trying again", self._row.channel)
                    self._lost(error)
                    time.sleep(1)
        finally:
            running.discard(self)
            self._waker.close()

    def _attempt(self) -> None:
        """Listen until that fails, then wait until the next attempt is due."""
        begin = time.monotonic()
        gone = False
        where = ""
        try:
            parameters = paths.direct(self._row.channel, self._database, self._found)
            with connect(parameters, self._waker, self._turn, self._tend) as direct:
                where = direct.place()
                self._listen(direct)
        except session.NoPrimary as error:
            gone = True
            self._lost(error)
        except (psycopg2.Error, OSError, Deaf) as error:
            self._lost(error, where)
        soon = gone or self.state.deaf_for() < AT_FIRST
        self._pause = min(self._pause, LAST_PAUSE_AT_FIRST if soon else LAST_PAUSE)
        due = begin + random.uniform(self._pause / 2, self._pause)
        self._pause *= 2
        while time.monotonic() < due:
            self._tend()
            self._waker.wait(min(due, self._next_event(None)) - time.monotonic())

    def _lost(self, error: Exception, where: str = "") -> None:
        if self.state.name != DEAF:
            self._forget_probe(RETRY_SOON)
        reason = one_line(error)
        self.state.deaf(reason if where in reason else f"{where}: {reason}")

    # --- listening ----------------------------------------------------------------

    def _listen(self, direct: Direct) -> None:
        """Run LISTEN and hand over what is heard, until the session fails.

        :raises Deaf: where a probe is not heard
        :raises psycopg2.Error: where the session breaks
        """
        direct.listen([*self._statements, f"LISTEN {self._channel.probe}"])
        direct.meanwhile = None
        self._pause = FIRST_PAUSE
        # a bus listener begins because somebody has subscribed, maybe a moment ago
        self._to_catch_up = self._channel.bus or self.state.name != STARTING
        self._proved = False
        self._answered = time.monotonic()
        self._probe, self._probe_due = None, 0.0
        while True:
            self._tend(direct)
            heard = direct.wait(self._next_event(direct) - time.monotonic())
            if heard:
                self._hear(direct, heard)

    def _hear(self, direct: Direct, heard: list) -> None:
        now = self._answered = time.monotonic()
        own = self._probe and self._probe.payload in [notify.payload for notify in heard]
        # once a session has heard a probe of its own, whatever it hears proves it
        if own or (self._proved and self.state.name != UNKNOWN):
            self._proved = True
            self.state.listening(direct.where(), now - self._probe.begun if own else None)
            if self._probe:
                self._probe.heard = True
            elif not self._to_catch_up:
                self._probe_due = now + random.uniform(*self._channel.silence)
        payloads = [
            notify.payload
            for notify in heard
            if notify.channel == self._row.channel and not payload.is_probe(notify.payload)
        ]
        if self._channel.bus:
            readable = [text for text in payloads if payload.is_list_of_channels(text)]
            if len(readable) < len(payloads) and not self._warned:
                self._warned = True
                _logger.warning(NOT_FROM_ODOO, self._row.channel)
            payloads = readable
        if payloads:
            self._inbox.deliver(self._row.channel, payloads)

    # --- proving and catching up, while listening and while deaf --------------------

    def _tend(self, direct: Optional[Direct] = None) -> None:
        """Do what is due.

        :param direct: the session that listens, or None while there is none
        :raises Deaf: where a probe was not heard
        :raises psycopg2.Error: where the server does not answer any more
        """
        now = time.monotonic()
        self.state.remind()
        if self._probe is None:
            if now >= self._probe_due:
                path = paths.normal(self._database)
                self._probe = Probe(path, self._channel.probe, self._waker.wake)
        elif self._probe.error:
            self._not_sent(direct, self._probe.error)
        elif self._probe.sent:
            self._sent(direct, self._probe)
        if self._batches and now >= self._next_batch:
            self._next_batch = now + catchup.PERIOD
            self._inbox.deliver(self._row.channel, self._batches.popleft())
        if direct and now >= self._answered + ALIVE_AFTER:
            direct.run("SELECT 1", ANSWERS_WITHIN)
            self._answered = time.monotonic()

    def _not_sent(self, direct: Optional[Direct], error: Exception) -> None:
        if direct:
            self.state.unknown(direct.where(), one_line(error))
        soon = direct and self._to_catch_up
        self._forget_probe(RETRY_SOON if soon else RETRY)

    def _sent(self, direct: Optional[Direct], probe: Probe) -> None:
        # now that the normal path works, Odoo's loop can use it
        if self._to_catch_up or (self._channel.bus and not direct):
            self._plan_catch_up()
        if not direct:
            self._forget_probe(RETRY)
        elif probe.heard:
            self._forget_probe(self._channel.silence)
        elif time.monotonic() >= probe.sent + HEARD_WITHIN:
            self._turn = direct.turn + 1  # another place may be the primary now
            raise Deaf(direct.why_not_heard(HEARD_WITHIN))

    def _forget_probe(self, pause: Tuple[float, float]) -> None:
        self._probe = None
        self._probe_due = time.monotonic() + random.uniform(*pause)

    def _next_event(self, direct: Optional[Direct]) -> float:
        """Return the time at which ``_tend`` has something to do again."""
        events = [self.state.reminder]
        if self._probe is None:
            events.append(self._probe_due)
        elif self._probe.sent:
            events.append(self._probe.sent + HEARD_WITHIN)
        if self._batches:
            events.append(self._next_batch)
        if direct:
            events.append(self._answered + ALIVE_AFTER)
        return min(events)

    def _plan_catch_up(self) -> None:
        self._to_catch_up = False
        try:
            self._batches = deque(catchup.batches(self._row))
        except psycopg2.Error as error:  # the databases could not be listed
            self._to_catch_up = True
            _logger.debug("%s: not caught up yet: %s", self._row.channel, error)
        except AttributeError as error:
            _logger.error(NO_SUBSCRIPTIONS, self._row.module, self._row.subscriptions, error)
        # other processes have heard of the same loss at the same moment
        self._next_batch = time.monotonic() + random.uniform(0, catchup.JITTER)


def start(
    row: seams.Listener,
    database: str,
    found: Mapping[str, settings.Value],
    inbox: Inbox,
    statements: list,
) -> Watch:
    """Return a new watch that runs."""
    watch = Watch(row, database, found, inbox, statements)
    watch.start()
    return watch
