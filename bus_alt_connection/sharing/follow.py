# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A process that follows has no session of its own: another one, its leader, tells it what arrives.

A loop that calls ``fileno`` before each wait, as Odoo's cron does, waits on the socket itself
(``Feed``). The bus has its loop wait on one file descriptor for ever, so a thread, or greenlet,
reads the socket for it (``Follower``).
"""

from __future__ import annotations

import logging
import select
import selectors
import threading
import time
from collections import Counter
from typing import Callable

from ..config.timing import AFTER_UNEXPECTED_ERROR, DEFAULT_TIMING, MAX_WAIT
from ..listener.catch_up import CatchUp
from ..listener.inbox import Inbox
from ..listener.status import Failure, ListenerStatus, State
from ..postgres.log import PatientLogger
from ..postgres.wakeup import Wakeup
from .frames import Heard, Look, Missed, Status
from .link import LeaderLost, Link

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.listener"))

_logged_errors: set = set()

OnLost = Callable[[Inbox, LeaderLost], object]


class Feed:
    """Fills an inbox from a link, in the loop that waits on the inbox.

    :param on_lost: called when the leader is lost, in that loop
    """

    def __init__(self, link: Link, inbox: Inbox, on_lost: OnLost):
        self._link, self._inbox, self._on_lost = link, inbox, on_lost
        # one file descriptor for two: the socket, and the timer that the leader sets
        self._epoll = select.epoll()
        for one in (link.socket, link.timer):
            self._epoll.register(one, select.EPOLLIN)
        inbox.feed, inbox.on_close = self, lambda _inbox: self.close()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def receive(self) -> None:
        """Deliver what has arrived."""
        try:
            for frame in self._link.receive():
                if isinstance(frame, Heard):
                    self._inbox.deliver(frame.payloads)
                elif isinstance(frame, Look):
                    for payloads in self._inbox.catch_up_payloads():
                        self._inbox.deliver(payloads)
        except LeaderLost as error:
            self.close()
            self._inbox.feed = None
            if not self._inbox.closed:
                self._on_lost(self._inbox, error)

    def report_missed(self) -> None:
        """Have the leader tell it again, once Odoo may be able to look."""
        self._link.send(Missed())

    def close(self) -> None:
        self._epoll.close()
        self._link.close()


class Follower(threading.Thread):
    """Fills an inbox from a link; what pages show of it is what its leader knows.

    :param quiet: the leader is of the same server, and logs for it
    :param on_lost: called when the leader is lost, in this thread
    """

    leads = False

    def __init__(self, link: Link, inbox: Inbox, quiet: bool, on_lost: OnLost):
        super().__init__(name="bus_alt_connection.follower", daemon=True)
        self.status = ListenerStatus(DEFAULT_TIMING, quiet)
        self.notification_counts: Counter = Counter()
        self.failure_counts = dict.fromkeys(Failure, 0)
        self.followers = 0
        self._link, self._inbox, self._on_lost = link, inbox, on_lost
        self._wakeup = Wakeup()
        self._catch_up = CatchUp(wake=self._wakeup.wake)
        self._owes_round = False  # told to look while deaf, and the round before went on
        inbox.missed_since = inbox.missed_since or time.monotonic()
        self.status.mark_starting((inbox.channel,))
        self._take_status(link.status)
        inbox.on_close = lambda _inbox: self._wakeup.stop()

    @property
    def channels(self) -> list[str]:
        """Channels that the processes of this server listen on."""
        return list(self.status.channels)

    def add(self, _inbox: Inbox) -> bool:
        """Take no other inbox."""
        return False

    def run(self):
        lost, pause = None, 0.0
        try:
            self._follow()
        except LeaderLost as error:
            lost = error
        except Exception as error:  # as a listener, it must not stop for good
            lost, pause = LeaderLost(f"unexpected error: {error!r}"), AFTER_UNEXPECTED_ERROR
            if type(error) not in _logged_errors:
                _logged_errors.add(type(error))
                _logger.exception("%s: unexpected error, trying again", self._inbox.channel)
        if lost:
            self._note_missed()
        self._link.close()
        self._wakeup.close()
        if lost:
            time.sleep(pause)
            self._on_lost(self._inbox, lost)

    def _follow(self) -> None:
        """Pass on what the leader tells, until the inbox is closed.

        :raises LeaderLost: where the leader is lost
        """
        with selectors.DefaultSelector() as selector:
            for one in (self._wakeup, self._link.socket, self._link.timer):
                selector.register(one, selectors.EVENT_READ)
            while not self._wakeup.stopped:
                self._receive()
                due = min(self._catch_up.next_due(), self.status.reminder)
                seconds = max(0.0, due - time.monotonic())
                selector.select(min(seconds, MAX_WAIT))
                self._wakeup.drain()

    def _receive(self) -> None:
        for frame in self._link.receive():
            if isinstance(frame, Heard):
                self._inbox.deliver(frame.payloads)
            elif isinstance(frame, Status):
                self._take_status(frame)
            else:
                # while deaf, the round that has begun is finished first
                busy = self._owes_round = self.status.state is State.DEAF and self._catch_up.busy
                self._catch_up.schedule(time.monotonic(), [self._inbox], only_missed=busy)
        now = time.monotonic()
        self.status.remind(now)
        self._catch_up.deliver_due(now)
        if self._inbox.needs_catch_up:
            self._inbox.needs_catch_up = False
            self._link.send(Missed())

    def _note_missed(self) -> None:
        """Note that notifications may have been missed since the last proof."""
        if self.status.state is State.LISTENING:
            self._inbox.missed_since = self.status.proven

    def _take_status(self, told: Status) -> None:
        now, status = time.monotonic(), self.status
        if told.state != State.LISTENING.value:
            self._note_missed()
        state, where = State(told.state), f"{told.where}, by process {self._link.pid}"
        status.channels = tuple(told.channels) or status.channels
        if state is State.LISTENING and self._inbox.channel not in told.channels:
            state = State.STARTING  # the leader's session does not listen there yet
        if state is State.LISTENING:
            if self._owes_round:  # the leader may say so after it has told it to look
                self._owes_round = False
                self._catch_up.schedule(now, [self._inbox])
            status.mark_listening(now, where, told.round_trip)
        elif state is State.UNKNOWN:
            status.mark_unknown(now, where, told.reason)
        elif state is State.DEAF:
            status.mark_deaf(now, told.reason)
        else:
            status.mark_starting(status.channels)
        if told.proven_ago is not None:
            status.proven = now - told.proven_ago
        self.notification_counts = Counter(told.notifications)
        self.failure_counts = {failure: told.failures.get(failure.value, 0) for failure in Failure}
        self.followers = told.followers
