# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A follower, as its leader sees it: one that does not read costs its leader nothing."""

from __future__ import annotations

from typing import Callable, Collection

from ..listener.inboxes import AnyInbox
from .frames import Hello, Look, encode, encode_heard


class Peer(AnyInbox):
    """The inbox of a follower, as the listener sees it.

    :param send: sends a packet; raises ``BlockingIOError`` where there is no room
    :param own_server: of the process that leads
    """

    is_local = False

    def __init__(self, hello: Hello, send: Callable[[bytes], object], own_server: int):
        super().__init__(hello.channel, hello.while_deaf)
        self.wants_status = hello.wants_status
        self.server = None if hello.server == own_server else hello.server
        # a ``Look`` is due as soon as notifications arrive and the socket has room
        self.owes_look = hello.missed
        self.is_full = False
        self._send_packet = send

    def deliver(self, payloads: Collection[str]) -> None:
        """Send these payloads, or let the follower look at everything later."""
        for packet in encode_heard(tuple(payloads)):
            if not self.send(packet):
                self.owes_look = True

    def look(self) -> None:
        """Let the follower look at everything, as soon as there is room."""
        self.needs_catch_up = False
        self.owes_look = not self.send(encode(Look()))

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
