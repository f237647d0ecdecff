# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The connections of followers: which there are, and who is refused. Nothing here waits."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from typing import TYPE_CHECKING, Collection, Mapping

from ..config.timing import JOIN_TIMEOUT
from ..postgres.log import PatientLogger
from .frames import MAX_FRAME, Hello, Missed, ProtocolError, decode, encode
from .ipc import open_socket, peer_of, send_with_timer
from .peer import Peer

if TYPE_CHECKING:
    from .lead import LeaderWakeup

_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.listener"))

BACKLOG = 1024
MAX_SILENT = 32  # connections that have not said yet what they want

NO_DESCRIPTOR = "no follower can connect now: %s"
REFUSED = "refused a process that connected to share the listener (process %d): %s"


class Followers:
    """The followers of this process.

    :param server_socket: where they connect
    :param leader: serves them in its waits, and has what they are told
    """

    def __init__(self, server_socket: socket.socket, leader: LeaderWakeup):
        self._server_socket, self._leader = server_socket, leader
        self._peers: dict[socket.socket, Peer] = {}
        self._silent: dict[socket.socket, float] = {}  # until when they may be
        self._logged: set = set()
        leader.selector.register(server_socket, selectors.EVENT_READ)

    def __len__(self) -> int:
        return len(self._peers)

    def serve(self, happened: Mapping[object, int]) -> None:
        """Accept who comes, and read what they say.

        :param happened: what the selector returned: the events of each socket
        """
        if self._server_socket in happened:
            self._accept()
        for client, events in happened.items():
            peer = self._peers.get(client)
            if peer and events & selectors.EVENT_WRITE:
                peer.is_full = False
            if events & selectors.EVENT_READ and (peer or client in self._silent):
                self._receive(client, peer)

    def run_due(self, now: float, heard: Collection[str]) -> Collection[float]:
        """Do what is due, and return when there is something again.

        :param heard: the channels on which notifications arrive: what was missed there can be
            looked for
        """
        for client, deadline in list(self._silent.items()):
            if now >= deadline:
                self._refuse(client, f"it said nothing for {JOIN_TIMEOUT:g} s")
        for client, peer in self._peers.items():
            if peer.owes_look and peer.channel in heard and not peer.is_full:
                peer.look()
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.is_full else 0)
            if self._leader.selector.get_key(client).events != events:
                self._leader.selector.modify(client, events)
        return self._silent.values()

    def tell_status(self) -> None:
        """Tell the state to those that want to know it."""
        for peer in self._peers.values():
            if peer.wants_status:
                peer.send(encode(self._leader.status_for(peer.server)))

    def close(self) -> None:
        """End all connections, and free the name: another process can lead."""
        for one in [self._server_socket, *self._silent, *self._peers]:
            one.close()

    def _accept(self) -> None:
        for _ in range(BACKLOG):
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
            self._silent[client] = self._leader.clock() + JOIN_TIMEOUT
            self._leader.selector.register(client, selectors.EVENT_READ)
            self._receive(client, None)
            if len(self._silent) > MAX_SILENT:
                self._refuse(next(iter(self._silent)), "it said nothing, and others wait")

    def _receive(self, client: socket.socket, peer: Peer | None) -> None:
        try:
            data = client.recv(MAX_FRAME)
            frame = decode(data) if data else None
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
        peer = Peer(hello, client.send, self._leader.own_server)
        del self._silent[client]
        try:
            status = self._leader.status_for(peer.server)
            send_with_timer(client, encode(status), self._leader.timer)
        except OSError:  # it has gone
            self._forget(client)
            return
        self._peers[client] = peer
        self._leader.listener.add(peer)

    def _refuse(self, client: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):
            kind = why.partition(":")[0]
            self._log_once(kind, REFUSED, peer_of(client)[0], why)
        self._forget(client)

    def _forget(self, client: socket.socket) -> None:
        self._silent.pop(client, None)
        peer = self._peers.pop(client, None)
        with contextlib.suppress(KeyError):  # refused before it was registered
            self._leader.selector.unregister(client)
        client.close()
        if peer:
            self._leader.listener.remove(peer)

    def _log_once(self, kind: str, text: str, *values) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            _logger.warning(text, *values)
