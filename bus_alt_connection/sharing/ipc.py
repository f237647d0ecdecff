# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What Linux has for processes of one machine that share a listener.

* Abstract names of sockets ("Abstract sockets" of unix(7)): the kernel frees a name when its
  process ends, however it ends, and the other ends of its connections are readable then.
* A timer that is a file descriptor (timerfd_create(2)), and that processes share: it is set again
  and again by one of them, and readable in all of them once that has stopped.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import time
import weakref

from .frames import MAX_FRAME

_CREDENTIALS = struct.Struct("3i")

_open_sockets: weakref.WeakSet = weakref.WeakSet()


def open_socket(taken: socket.socket | None = None) -> socket.socket:
    """Return a socket that keeps packets apart and never waits.

    :param taken: one that was accepted
    :raises OSError: where there is no such kind
    """
    made = taken or socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    _open_sockets.add(made)
    return made


def _close_in_child() -> None:
    """In a forked process, close the sockets it has inherited: they would keep the name taken."""
    for one in list(_open_sockets):
        with contextlib.suppress(OSError, ValueError):
            os.close(one.detach())


os.register_at_fork(after_in_child=_close_in_child)


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """Return the process and the user at the other end, as the kernel knows them (SO_PEERCRED)."""
    option = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(option)
    return pid, uid


def send_with_timer(connected: socket.socket, data: bytes, timer: Timer) -> None:
    """Send a packet, and the timer with it.

    :raises OSError: where the other end has gone
    """
    descriptors = array.array("i", [timer.fileno()])
    connected.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])


def receive_with_timer(connected: socket.socket) -> tuple[bytes, Timer | None]:
    """Return a packet, and the timer that came with it.

    :raises OSError: where the other end has gone
    """
    room, flags = socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
    data, ancillary, _flags, _address = connected.recvmsg(MAX_FRAME, room, flags)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, Timer(descriptors[0]) if descriptors else None


class Timer:
    """A timer that one process sets and others wait for; readable once it has expired."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    @classmethod
    def new(cls) -> Timer:
        """Return a new one.

        :raises OSError: where there is none
        """
        return cls(_timerfd_create())

    def set(self, seconds: float) -> None:
        """Let it expire in so many seconds, also where it has expired before."""
        _timerfd_settime(self._descriptor, seconds)

    def has_expired(self) -> bool:
        """Tell whether it has, without a wait."""
        # poll needs no file descriptor of its own, and takes high numbers
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


if hasattr(os, "timerfd_create"):  # Python 3.13

    def _timerfd_create() -> int:
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _timerfd_settime(descriptor: int, seconds: float) -> None:
        os.timerfd_settime(descriptor, initial=seconds)

else:

    def _libc():
        import ctypes  # only the process that leads needs it

        return ctypes, ctypes.CDLL(None, use_errno=True)

    def _timerfd_create() -> int:
        ctypes, libc = _libc()
        if not hasattr(libc, "timerfd_create"):
            raise OSError("no timerfd_create")
        # CLOCK_MONOTONIC is 1 in linux/time.h; the flags are those of open(2)
        descriptor = libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return descriptor

    def _timerfd_settime(descriptor: int, seconds: float) -> None:
        ctypes, libc = _libc()
        # struct itimerspec: the interval, then the time until it expires
        value = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1 * 1e9))
        if libc.timerfd_settime(descriptor, 0, value, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
