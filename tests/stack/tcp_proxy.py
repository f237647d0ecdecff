"""A TCP proxy between Odoo and PostgreSQL that can fail as a firewall does."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time

from .process import free_port

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class TcpProxy:
    """Forwards each connection to ``host``:``port`` to ``target``.

    :param target: (host, port); may be set anew, for the connections that come then
    :param host: an address of this machine
    """

    def __init__(self, target: tuple, host: str = "127.0.0.1"):
        self.host = host
        self.port = free_port()
        self.target = target
        self.delay = 0.0  # seconds that bytes take, in each direction
        self._pairs: list[tuple] = []
        self._forgotten: set = set()
        self._server = None
        self._hanging = False
        self.open()

    def open(self, rate: float = 0):
        """Accept connections.

        :param rate: bytes that pass in a second, in both directions; 0: no limit
        """
        self._rate = rate
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind((self.host, self.port))
        self._server.listen(50)
        threading.Thread(target=self._accept, args=[self._server], daemon=True).start()

    def close(self):
        """Refuse connections, and close those that are open."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._end()

    def reset(self):
        """Reset the connections that are open; accept new ones."""
        for pair in self._pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._end()

    def forget(self):
        """Drop the bytes of the connections that are open, without closing them."""
        self._forgotten.update(self._pairs)

    def hang(self):
        """Accept connections, but drop the bytes of all, until ``resume``."""
        self._hanging = True
        self.forget()

    def resume(self):
        """Forward the bytes of new connections again."""
        self._hanging = False

    def _end(self):
        pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            end.close()

    def _accept(self, server: socket.socket):
        with contextlib.suppress(OSError):
            while True:
                client, _address = server.accept()
                try:
                    pair = client, socket.create_connection(self.target, 5)
                except OSError:
                    client.close()
                    continue
                self._pairs.append(pair)
                if self._hanging:
                    self._forgotten.add(pair)
                threading.Thread(target=self._forward, args=[pair], daemon=True).start()

    def _forward(self, pair: tuple):
        ends = {pair[0]: pair[1], pair[1]: pair[0]}
        with contextlib.suppress(OSError, ValueError):
            while True:
                for end in select.select(list(ends), [], [], 0.05)[0]:
                    data = end.recv(65536)
                    if not data:
                        raise OSError("closed")
                    time.sleep(self.delay)
                    if self._rate:
                        time.sleep(len(data) / self._rate)
                    if pair not in self._forgotten:
                        ends[end].sendall(data)
        for end in pair:
            with contextlib.suppress(OSError):
                end.close()
