# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Waits that another thread can end, in threads and in gevent's greenlets alike."""

from __future__ import annotations

import contextlib
import selectors
import socket

from ..config.timing import MAX_WAIT


class Stopped(BaseException):
    """The wait was ended for good; what goes on after any ``Exception`` does not after this."""


class Wakeup:
    """A self-pipe that ends the wait of another thread; ``stopped`` tells that it is for good."""

    def __init__(self):
        self.stopped = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wake(self) -> None:
        """End the wait, or the next one; never blocks."""
        # full: it will wake anyway; closed: no thread waits there any more
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def stop(self) -> None:
        """End this wait and all that follow with ``Stopped``."""
        self.stopped = True
        self.wake()

    def drain(self) -> None:
        """Take what ``wake`` sent, so that the next wait lasts."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def wait(self, seconds: float, other=None, events: int = selectors.EVENT_READ) -> bool:
        """Wait until woken, until something happens to ``other``, or for so many seconds.

        Return whether something has happened to ``other``, which has a ``fileno``.

        :raises Stopped: after ``stop``
        """
        # libpq may go on with another socket of the same number: a new selector each time
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            if other is not None:
                selector.register(other, events)
            ready = [
                key.fileobj for key, _events in selector.select(min(max(0.0, seconds), MAX_WAIT))
            ]
        if self._reader in ready:
            self.drain()
        if self.stopped:
            raise Stopped
        return other is not None and other in ready

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
