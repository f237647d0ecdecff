# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The listener of a process that leads feeds other processes, too.

Each follower stands among the listener's inboxes. Its socket is served while the listener waits for
its session, by the same selector: a follower never holds up the listener, and nothing is kept for
one that does not read. Once there is room in its socket again, it is told to look at everything.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from typing import Callable

from ..config.timing import (
    AFTER_UNEXPECTED_ERROR,
    LEAD_RENEWAL,
    LEAD_TIMEOUT,
    MAX_WAIT,
    NEVER,
    STATUS_INTERVAL,
)
from ..listener.status import State
from ..postgres.log import PatientLogger
from ..postgres.wakeup import Stopped, Wakeup
from .followers import Followers
from .frames import Status
from .ipc import Timer, open_socket

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.listener"))

HELD_UP = "%s: this process was held up for %.0f s: another one listens for it now"
NO_DESCRIPTOR = "%s: this process gets no file descriptor: another one listens for it now: %s"

WITHOUT_DESCRIPTORS = 3  # attempts in a row to get one, until the lead is given up


class LeaderWakeup(Wakeup):
    """A wakeup whose waits also serve the followers of the listener that waits.

    :param server_socket: where followers connect
    :param own_server: of this process
    :param clock: tells the time, monotonic seconds
    :raises OSError: where there is no timer
    """

    def __init__(
        self,
        server_socket: socket.socket,
        own_server: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self.listener = None  # set before the first wait
        self.own_server, self.clock = own_server, clock
        self._renewed = clock()
        self._status_due, self._status_told = NEVER, 0.0
        self._last_told: tuple = (None, None)
        self._without = 0  # attempts in a row that got no file descriptor
        # why this process leads no more; and seconds until it looks for a leader: others come first
        self.deposed, self.pause = "this one was held up", 0.0
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._reader, selectors.EVENT_READ)
        self.timer = Timer.new()  # last: unlike the others it is not closed with its object
        self.timer.set(LEAD_TIMEOUT)
        self._followers = Followers(server_socket, self)

    @property
    def followers(self) -> int:
        """How many inboxes of other processes are fed."""
        return len(self._followers)

    def wait(self, seconds: float, other=None, events: int = selectors.EVENT_READ) -> bool:
        """Wait as ``Wakeup`` does, and serve the followers meanwhile.

        :raises Stopped: also where this process leads no more
        """
        end = self.clock() + min(max(0.0, seconds), MAX_WAIT)
        number = None if other is None else other.fileno()
        if number is not None:
            self.selector.register(number, events)
        try:
            while True:
                due = min(end, self._run_due())
                ready = self.selector.select(max(0.0, due - self.clock()))
                happened = {key.fileobj: mask for key, mask in ready}
                if self._reader in happened:
                    self.drain()
                if self.stopped:
                    raise Stopped
                self._followers.serve(happened)
                if self._reader in happened or number in happened or self.clock() >= end:
                    return number in happened
        finally:
            if number is not None:
                self.selector.unregister(number)

    def close(self) -> None:
        """End the connections of all followers, and free the name: another process can lead."""
        Wakeup.close(self)
        self._followers.close()
        self.timer.close()
        self.selector.close()

    def _run_due(self) -> float:
        """Do what is due, and return when there is something again."""
        now = self.clock()
        self._renew(now)
        self._tell_status(now)
        status = self.listener.status
        heard = status.channels if status.state is State.LISTENING else ()
        due = self._followers.run_due(now, heard)
        return min([self._renewed + LEAD_RENEWAL, self._status_due, *due])

    def _renew(self, now: float) -> None:
        """Show that this process is at work."""
        silence = now - self._renewed
        if silence >= LEAD_TIMEOUT:
            self.stopped = True
            _logger.warning(HELD_UP, ", ".join(self.listener.status.channels), silence)
            raise Stopped
        if silence >= LEAD_RENEWAL:
            self.timer.set(LEAD_TIMEOUT)
            self._renewed = now
            self._check_descriptors()

    def _check_descriptors(self) -> None:
        """Give the lead up where only another process can get a session, for lack of descriptors.

        :raises Stopped: where it is given up
        """
        status, before, self._without = self.listener.status, self._without, 0
        if status.state is not State.DEAF or not self.followers:
            return
        try:
            open_socket().close()
        except OSError as error:
            self._without = before + 1
            if self._without == WITHOUT_DESCRIPTORS:
                self.stopped = True
                self.deposed, self.pause = "this one got no file descriptor", AFTER_UNEXPECTED_ERROR
                _logger.warning(NO_DESCRIPTOR, ", ".join(status.channels), error)
                raise Stopped from None

    def _tell_status(self, now: float) -> None:
        """Tell followers that want the status: each change at once, proofs and counts within
        ``STATUS_INTERVAL``."""
        status, listener = self.listener.status, self.listener
        failures = tuple(listener.failure_counts.values())
        state = status.state, status.reason, status.channels, failures, self.followers
        shown = state, (status.proven, sum(listener.notification_counts.values()))
        self._status_due = (
            NEVER if shown == self._last_told else self._status_told + STATUS_INTERVAL
        )
        if state == self._last_told[0] and now < self._status_due:
            return
        self._last_told, self._status_told, self._status_due = shown, now, NEVER
        self._followers.tell_status()

    def status_for(self, server: int | None) -> Status:
        """Return what a follower of a server is told; None: of this process's own."""
        listener, status = self.listener, self.listener.status
        # those that the session listens on
        channels = [one for one in listener.inboxes.channels_of(server) if one in status.channels]
        proven_ago = None if status.proven is None else self.clock() - status.proven
        return Status(
            state=status.state.value,
            reason=status.reason,
            where=status.where,
            proven_ago=proven_ago,
            round_trip=status.round_trip,
            channels=channels,
            notifications=dict(listener.notification_counts),
            failures={failure.value: n for failure, n in listener.failure_counts.items()},
            followers=self.followers,
            server=self.own_server,
        )
