# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A process that follows has no session of its own: another one, its leader, tells it what arrives.

A loop that calls ``fileno`` before each wait, as Odoo's cron does, waits on the socket itself
(``Feed``). The bus has its loop wait on one file descriptor for ever, so a thread, or greenlet,
reads the socket for it (``Follower``).
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import threading
import time
from collections import Counter
from typing import Callable, Iterator

from ..config.timing import (
    DEFAULT_TIMING,
    JOIN_INTERVAL,
    JOIN_TIMEOUT,
    LEAD_TIMEOUT,
    MAX_WAIT,
)
from ..postgres.wakeup import Stopped, Wakeup
from . import frames
from .catch_up import CatchUp
from .frames import Frame, Heard, Hello, Look, Missed, ProtocolError, Status
from .inbox import Inbox
from .ipc import Timer, open_socket, peer_of, receive_with_timer
from .status import Failure, ListenerStatus, State

MAX_FRAMES = 1000  # taken at a time

OnLost = Callable[[Inbox, "LeaderLost"], object]


class CannotFollow(Exception):
    """A process has the name of the leader, but is none; its text says why."""


class LeaderLost(Exception):
    """The leader does not tell anything any more; its text says why.

    :param silent: the process that leads and is silent, where it has not ended
    """

    def __init__(self, text: str, silent: int = 0):
        super().__init__(text)
        self.silent = silent


class Link:
    """The connection to a leader.

    :param pid: the leader
    :param status: what it answered
    """

    def __init__(self, connected: socket.socket, timer: Timer, pid: int, status: Status):
        self.socket, self.timer, self.pid, self.status = connected, timer, pid, status

    def receive(self) -> Iterator[Frame]:
        """Take the frames that have arrived.

        :raises LeaderLost: after them
        """
        for _time in range(MAX_FRAMES):
            try:
                data = self.socket.recv(frames.MAX_FRAME)
                frame = frames.decode(data) if data else None
            except BlockingIOError:
                if self.timer.has_expired():
                    text = f"process {self.pid} is silent for {LEAD_TIMEOUT:g} s"
                    raise LeaderLost(text, self.pid) from None
                return
            except (OSError, ProtocolError):
                frame = None
            if frame is None:
                raise LeaderLost(f"process {self.pid} has ended")
            yield frame

    def send(self, frame: Frame) -> None:
        """Send a frame; one that cannot be sent is not: then the link has ended."""
        with contextlib.suppress(OSError):
            self.socket.send(frames.encode(frame))

    def close(self) -> None:
        self.socket.close()
        self.timer.close()


def connect(name: str, hello: Hello, without: int = 0) -> Link | None:
    """Follow the leader of this name, and return the link; None where there is none.

    :param without: a process that is not to be followed
    :raises CannotFollow: where a process has the name that does not lead this one
    :raises OSError: where processes cannot connect here at all
    """
    connected = open_socket()
    try:
        return _join(connected, name, hello, without)
    except ConnectionError:  # it ends just now
        connected.close()
        return None
    except BaseException:
        connected.close()
        raise


def _join(connected: socket.socket, name: str, hello: Hello, without: int) -> Link:
    deadline = time.monotonic() + JOIN_TIMEOUT
    _reach(connected, name, deadline)
    pid, uid = peer_of(connected)
    if uid != os.geteuid():
        raise CannotFollow(f"process {pid} of user {uid} has the name of its socket")
    if pid == without:
        raise CannotFollow(f"process {pid} is silent")
    connected.send(frames.encode(hello))
    with selectors.DefaultSelector() as selector:
        selector.register(connected, selectors.EVENT_READ)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise CannotFollow(f"process {pid} did not answer within {JOIN_TIMEOUT:g} s")
    data, timer = receive_with_timer(connected)
    if not data:
        raise ConnectionResetError
    try:
        status = frames.decode(data)
    except ProtocolError:
        status = None
    if timer is None or not isinstance(status, Status):
        if timer:
            timer.close()
        raise CannotFollow(f"process {pid} does not answer as a leader does")
    return Link(connected, timer, pid, status)


def _reach(connected: socket.socket, name: str, deadline: float) -> None:
    while True:
        try:
            connected.connect(name)
            return
        except BlockingIOError:  # many do so now
            if time.monotonic() >= deadline:
                raise CannotFollow("it takes no connection") from None
        time.sleep(JOIN_INTERVAL)


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
        self._catch_up, self._wakeup = CatchUp(wake=self._wake), Wakeup()
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
        lost = None
        with contextlib.suppress(Stopped), selectors.DefaultSelector() as selector:
            for one in (self._wakeup, self._link.socket, self._link.timer):
                selector.register(one, selectors.EVENT_READ)
            try:
                while True:
                    self._receive()
                    due = min(self._catch_up.next_due(), self.status.reminder)
                    seconds = max(0.0, due - time.monotonic())
                    selector.select(min(seconds, MAX_WAIT))
                    self._wakeup.drain()
                    if self._wakeup.stopped:
                        raise Stopped
            except LeaderLost as error:
                lost = error
                self._note_missed()
        self._link.close()
        self._wakeup.close()
        if lost:
            self._on_lost(self._inbox, lost)

    def _receive(self) -> None:
        for frame in self._link.receive():
            if isinstance(frame, Heard):
                self._inbox.deliver(frame.payloads)
            elif isinstance(frame, Status):
                self._take_status(frame)
            else:
                # while nothing arrives a long round is finished first
                busy = self.status.state is State.DEAF and self._catch_up.busy
                self._catch_up.schedule(time.monotonic(), [self._inbox], only_missed=busy)
        now = time.monotonic()
        self.status.remind(now)
        self._catch_up.deliver_due(now)
        if self._inbox.needs_catch_up:
            self._inbox.needs_catch_up = False
            self._link.send(Missed())

    def _wake(self) -> None:
        self._wakeup.wake()

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
        if state is State.LISTENING:
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
