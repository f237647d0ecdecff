# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The connection of a follower to its leader."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from typing import Iterator

from ..config.timing import JOIN_INTERVAL, JOIN_TIMEOUT, LEAD_TIMEOUT
from . import frames
from .frames import Frame, Hello, ProtocolError, Status
from .ipc import Timer, open_socket, peer_of, receive_with_timer

MAX_FRAMES = 1000  # taken at a time


class CannotFollow(Exception):
    """A process has the leader's name, but cannot be followed; its text says why."""


class LeaderLost(Exception):
    """The leader does not tell anything any more; its text says why.

    :param silent_pid: the process that leads and is silent, where it has not ended
    """

    def __init__(self, text: str, silent_pid: int | None = None):
        super().__init__(text)
        self.silent_pid = silent_pid


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
        for _ in range(MAX_FRAMES):
            try:
                data = self.socket.recv(frames.MAX_FRAME)
                frame = frames.decode(data) if data else None
            except BlockingIOError:
                if self.timer.has_expired():
                    text = f"process {self.pid} is silent for {LEAD_TIMEOUT:g} s"
                    raise LeaderLost(text, self.pid) from None
                return
            except ProtocolError as error:
                text = f"process {self.pid} sent what cannot be read: {error}"
                raise LeaderLost(text) from None
            except OSError:
                frame = None
            if frame is None:
                raise LeaderLost(f"process {self.pid} has ended")
            yield frame

    def send(self, frame: Frame) -> None:
        """Send a frame; one that cannot be sent is dropped."""
        with contextlib.suppress(OSError):
            self.socket.send(frames.encode(frame))

    def close(self) -> None:
        self.socket.close()
        self.timer.close()


def connect(name: str, hello: Hello, excluded_pid: int | None = None) -> Link | None:
    """Follow the leader of this name, and return the link; None where there is none.

    :param excluded_pid: a process that is not to be followed
    :raises CannotFollow: where the process with that name cannot be followed
    :raises OSError: where processes cannot connect here at all
    """
    connected = open_socket()
    try:
        return _join(connected, name, hello, excluded_pid)
    except ConnectionError:  # no process has the name, or the one that has it is ending
        connected.close()
        return None
    except BaseException:
        connected.close()
        raise


def _join(connected: socket.socket, name: str, hello: Hello, excluded_pid: int | None) -> Link:
    deadline = time.monotonic() + JOIN_TIMEOUT
    _reach(connected, name, deadline)
    pid, uid = peer_of(connected)
    if uid != os.geteuid():
        raise CannotFollow(f"process {pid} of user {uid} has the name of its socket")
    if pid == excluded_pid:
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
        except BlockingIOError:  # many processes connect now
            if time.monotonic() >= deadline:
                raise CannotFollow("it takes no connection") from None
        time.sleep(JOIN_INTERVAL)
