# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The listener of a process that leads feeds other processes, too.

Each follower stands among the listener's inboxes. Its socket is served while the listener waits for
its session, by the same selector: a follower never holds up the listener, and nothing is kept for
one that does not read. Once there is room in its socket again, it is told to look at everything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from typing import Callable, Collection

from ..config.timing import (
    JOIN_TIMEOUT,
    LEAD_RENEWAL,
    LEAD_TIMEOUT,
    MAX_WAIT,
    NEVER,
    STATUS_INTERVAL,
)
from ..postgres.log import PatientLogger
from ..postgres.wakeup import Stopped, Wakeup
from . import frames
from .frames import Hello, Look, Missed, ProtocolError, Status
from .ipc import Timer, open_socket, peer_of, send_with_timer
from .status import State

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.listener"))

BACKLOG = 1024
MAX_SILENT = 32  # connections that have not said yet what they want

NO_DESCRIPTOR = "no follower can connect now: %s"
REFUSED = "refused a process that connected to share the listener (process %d): %s"
HELD_UP = "%s: this process was held up for %.0f s: another one listens for it now"


class Deposed(Stopped):
    """This process was held up for so long that its followers have given it up."""


class Peer:
    """The inbox of a follower, as the listener sees it.

    :param send: sends a packet; raises ``BlockingIOError`` where there is no room
    :param own_server: of the process that leads
    """

    is_local = False

    def __init__(self, hello: Hello, send: Callable[[bytes], object], own_server: int):
        self.channel, self.catch_up_while_deaf = hello.channel, hello.while_deaf
        self.wants_status, self.hello = hello.wants_status, hello
        self.server = None if hello.server == own_server else hello.server
        self.needs_catch_up = False  # after the next probe
        self.missed_since = 0.0  # monotonic seconds
        self.owes_look = hello.missed  # as soon as notifications arrive
        self.is_full = False
        self.on_close: Callable | None = None
        self._send_packet = send

    def deliver(self, packets: Collection[bytes]) -> None:
        """Send these packets, or let the follower look at everything later."""
        for packet in packets:
            if not self.send(packet):
                self.owes_look = True

    def look(self) -> None:
        """Let the follower look at everything, as soon as there is room."""
        self.needs_catch_up = False
        self.owes_look = not self.send(frames.encode(Look()))

    def send(self, packet: bytes) -> bool:
        """Send a packet, and tell whether there was room for it."""
        if self.is_full:
            return False
        try:
            self._send_packet(packet)
        except BlockingIOError:
            self.is_full = True
        except OSError:  # it has gone: its socket is readable now
            return False
        return not self.is_full


class Lead(Wakeup):
    """The waits of a listener that leads; followers are served during each.

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
        self._server_socket, self._own_server, self._clock = server_socket, own_server, clock
        self._timer = Timer.new()
        self._timer.set(LEAD_TIMEOUT)
        self._renewed = clock()
        self._status_due, self._status_told = NEVER, 0.0
        self._shown: tuple = (None, None)
        self._peers: dict[socket.socket, Peer] = {}
        self._silent: dict[socket.socket, float] = {}  # until when they may be
        self._events: dict[socket.socket, int] = {}  # that the selector waits for
        self._selector: selectors.BaseSelector | None = None
        self._logged: set = set()
        self.listener = None

    @property
    def followers(self) -> int:
        """How many inboxes of other processes are fed."""
        return len(self._peers)

    # --- waiting ------------------------------------------------------------------

    def wait(self, seconds: float, other=None, events: int = selectors.EVENT_READ) -> bool:
        """Wait as ``Wakeup`` does, and serve the followers meanwhile.

        :raises Deposed: where they have given this process up
        """
        end = self._clock() + min(max(0.0, seconds), MAX_WAIT)
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._reader, selectors.EVENT_READ)
            self._selector.register(self._server_socket, selectors.EVENT_READ)
        number = None if other is None else other.fileno()
        if number is not None:
            self._selector.register(number, events)
        try:
            while True:
                due = min(end, self._renew())
                ready = self._selector.select(max(0.0, due - self._clock()))
                happened = {key.fileobj: mask for key, mask in ready}
                if self._reader in happened:
                    self.drain()
                if self.stopped:
                    raise Stopped
                self._serve(happened)
                if self._reader in happened or number in happened or self._clock() >= end:
                    return number in happened
        finally:
            if number is not None:
                self._selector.unregister(number)

    def _renew(self) -> float:
        """Show that this process is at work, and return when to do it again."""
        now = self._clock()
        silence = now - self._renewed
        if silence >= LEAD_TIMEOUT:
            self.stopped = True
            _logger.warning(HELD_UP, ", ".join(self.listener.status.channels), silence)
            raise Deposed
        if silence >= LEAD_RENEWAL:
            self._timer.set(LEAD_TIMEOUT)
            self._renewed = now
        for client, deadline in list(self._silent.items()):
            if now >= deadline:
                self._refuse(client, f"it said nothing for {JOIN_TIMEOUT:g} s")
        self._tell_status(now)
        for client, peer in self._peers.items():
            owes = peer.owes_look and self.listener.status.state is State.LISTENING
            if owes and not peer.is_full:
                peer.look()
            write = selectors.EVENT_WRITE if peer.is_full else 0
            self._want(client, selectors.EVENT_READ | write)
        return min([self._renewed + LEAD_RENEWAL, self._status_due, *self._silent.values()])

    def _want(self, client: socket.socket, events: int) -> None:
        if self._events.get(client) != events:
            change = self._selector.modify if client in self._events else self._selector.register
            change(client, events)
            self._events[client] = events

    # --- followers ----------------------------------------------------------------

    def _serve(self, happened: dict) -> None:
        if self._server_socket in happened:
            self._accept()
        for client, mask in happened.items():
            peer = self._peers.get(client)
            if peer and mask & selectors.EVENT_WRITE:
                peer.is_full = False
            if mask & selectors.EVENT_READ and (peer or client in self._silent):
                self._receive(client, peer)

    def _accept(self) -> None:
        for _time in range(BACKLOG):
            try:
                client = open_socket(self._server_socket.accept()[0])
            except BlockingIOError:
                return
            except OSError as error:  # no file descriptor
                self._log_once("accept", NO_DESCRIPTOR, error)
                time.sleep(0.01)
                return
            if peer_of(client)[1] != os.geteuid():
                self._refuse(client, f"it is one of user {peer_of(client)[1]}")
                continue
            self._silent[client] = self._clock() + JOIN_TIMEOUT
            self._want(client, selectors.EVENT_READ)
            self._receive(client, None)
            if len(self._silent) > MAX_SILENT:
                self._refuse(next(iter(self._silent)), "it said nothing, and others wait")

    def _receive(self, client: socket.socket, peer: Peer | None) -> None:
        try:
            data = client.recv(frames.MAX_FRAME)
            frame = frames.decode(data) if data else None
        except BlockingIOError:
            return
        except OSError:
            frame = None
        except ProtocolError as error:
            self._refuse(client, str(error))
            return
        if frame is None:
            self._forget(client)
        elif peer and isinstance(frame, Missed):
            peer.needs_catch_up = True
        elif not peer and isinstance(frame, Hello):
            self._welcome(client, frame)
        else:
            self._refuse(client, f"it sent {type(frame).__name__}")

    def _welcome(self, client: socket.socket, hello: Hello) -> None:
        peer = Peer(hello, client.send, self._own_server)
        del self._silent[client]
        try:
            answer = frames.encode(self._status(self._clock(), peer.server))
            send_with_timer(client, answer, self._timer)
        except OSError:  # it has gone
            self._forget(client)
            return
        self._peers[client] = peer
        self.listener.add(peer)

    def _refuse(self, client: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):
            kind = why.partition(":")[0]
            self._log_once(kind, REFUSED, peer_of(client)[0], why)
        self._forget(client)

    def _forget(self, client: socket.socket) -> None:
        self._silent.pop(client, None)
        peer = self._peers.pop(client, None)
        if self._events.pop(client, None):
            self._selector.unregister(client)
        client.close()
        if peer:
            self.listener.remove(peer)

    def _log_once(self, kind: str, text: str, *values) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            _logger.warning(text, *values)

    # --- the state ----------------------------------------------------------------

    def _tell_status(self, now: float) -> None:
        """Tell the followers that want to know of each change, proofs and counts a bit later."""
        status, listener = self.listener.status, self.listener
        failures = tuple(listener.failure_counts.values())
        state = status.state, status.reason, status.channels, failures, self.followers
        shown = state, (status.proven, sum(listener.notification_counts.values()))
        self._status_due = NEVER if shown == self._shown else self._status_told + STATUS_INTERVAL
        if state == self._shown[0] and now < self._status_due:
            return
        self._shown, self._status_told, self._status_due = shown, now, NEVER
        for peer in self._peers.values():
            if peer.wants_status:
                peer.send(frames.encode(self._status(now, peer.server)))

    def _status(self, now: float, server: int | None) -> Status:
        listener, status = self.listener, self.listener.status
        return Status(
            state=status.state.value,
            reason=status.reason,
            where=status.where,
            proven_ago=None if status.proven is None else now - status.proven,
            round_trip=status.round_trip,
            channels=listener.inboxes.channels_of(server),
            notifications=dict(listener.notification_counts),
            failures={failure.value: n for failure, n in listener.failure_counts.items()},
            followers=self.followers,
            pid=os.getpid(),
            server=self._own_server,
        )

    def close(self) -> None:
        """End the connections of all followers, which free the name to lead."""
        Wakeup.close(self)
        for one in [self._server_socket, *self._silent, *self._peers]:
            one.close()
        self._timer.close()
        if self._selector is not None:
            self._selector.close()
