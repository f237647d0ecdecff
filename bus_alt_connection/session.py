# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A session with PostgreSQL in which every wait has a deadline and can be interrupted.

psycopg2's ordinary connections have neither: in Odoo's gevent process libpq does not even
keep its ``connect_timeout`` ("34.1. Database Connection Control Functions" of the libpq
documentation, ``PQconnectPoll``). Its asynchronous ones leave the waiting to us.
"""

import contextlib
import selectors
import socket
import time
from typing import Callable, Dict, List, Mapping, Optional

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_WRITE

# PQstatus before anybody has answered: CONNECTION_BAD, CONNECTION_STARTED (libpq-fe.h)
NOT_REACHED = (1, 2)


class Stopped(Exception):
    """The wait was interrupted for good."""


class NoPrimary(psycopg2.OperationalError):
    """Nobody is there, or only a standby: asking again soon costs no server anything."""


class Waker:
    """Ends the wait of another thread or greenlet; ``stopped`` tells that it is for good."""

    def __init__(self):
        self.stopped = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._other = None  # what else the selector looks at: file descriptor, events

    def fileno(self) -> int:
        return self._reader.fileno()

    def wake(self) -> None:
        # full: it will wake anyway; closed: nobody sleeps there any more
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def stop(self) -> None:
        self.stopped = True
        self.wake()

    def drain(self) -> None:
        """Take what ``wake`` sent, so that the next wait lasts."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def wait(self, seconds: float, other=None, events: int = selectors.EVENT_READ) -> bool:
        """Wait until woken, until something happens to ``other``, or for so many seconds.

        Return whether something has happened to ``other``.

        :param other: to be given up with ``release`` before its file descriptor is closed
        :raises Stopped: after ``stop``
        """
        wanted = None if other is None else (other.fileno(), events)
        if wanted != self._other:
            self.release()
            if wanted:
                self._selector.register(*wanted)
            self._other = wanted
        ready = [key.fileobj for key, _events in self._selector.select(max(0.0, seconds))]
        if self._reader in ready:
            self.drain()
        if self.stopped:
            raise Stopped
        return any(found is not self._reader for found in ready)

    def release(self) -> None:
        """Forget what the last wait looked at."""
        if self._other:
            self._selector.unregister(self._other[0])
            self._other = None

    def close(self) -> None:
        self._selector.close()
        self._reader.close()
        self._writer.close()


def places(parameters: Mapping[str, str]) -> List[Dict[str, str]]:
    """Return the parameters of each single address behind ``parameters``, in libpq's order.

    libpq would try several hosts, and several addresses of one, one after the other, but a
    dead one would use up the deadline of all. ``target_session_attrs`` is left out: only a
    primary takes LISTEN, whatever it says.

    :raises NoPrimary: where no name of a host is known
    """
    rest = {key: value for key, value in parameters.items() if key != "target_session_attrs"}
    names = rest.pop("host", "").split(",")
    addresses = rest.pop("hostaddr", "").split(",")
    ports = str(rest.pop("port", "")).split(",")
    number = max(len(names), len(addresses))
    found, errors = [], []
    for i in range(number):
        place = dict(rest)
        name, port = names[i % len(names)], ports[i % len(ports)]
        if name:
            place["host"] = name
        if port:
            place["port"] = port
        try:
            for address in [addresses[i % len(addresses)]] if addresses[0] else _look_up(name):
                found.append({**place, "hostaddr": address} if address else place)
        except OSError as error:
            errors.append(f"host {name!r} cannot be resolved: {error.strerror or error}")
    if not found:
        raise NoPrimary("; ".join(errors))
    return found


def _look_up(name: str) -> List[str]:
    if not name or name.startswith(("/", "@")):
        return [""]  # a socket; or libpq's own default
    # where Python waits for the name server, other greenlets go on; in libpq they would not
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(address[4][0] for address in answers))


class Session:
    """One session, at the end of one place.

    :param place: libpq's parameters
    :param waker: what may interrupt every wait in it
    :param timeout: of connecting and of each statement, seconds
    :param meanwhile: called about once a second while it waits for an answer; may be taken
        away later
    :raises NoPrimary: where nobody is there
    :raises psycopg2.OperationalError: where somebody is, but refuses or does not answer
    """

    def __init__(
        self,
        place: Mapping[str, str],
        waker: Waker,
        timeout: float,
        meanwhile: Optional[Callable[[], None]] = None,
    ):
        self.meanwhile = meanwhile
        self._waker = waker
        self._timeout = timeout
        self._reached = False
        self._connection = None
        try:
            self._connection = psycopg2.connect(async_=True, **place)
            self._finish()
        except psycopg2.OperationalError as error:
            self.close()
            raise error if self._reached else NoPrimary(str(error)) from None
        except BaseException:
            self.close()
            raise
        self.info = self._connection.info

    def run(self, statement: str, timeout: Optional[float] = None) -> Optional[tuple]:
        """Run one statement in a transaction of its own and return its first row, if any."""
        cursor = self._connection.cursor()
        cursor.execute(statement)
        self._finish(timeout)
        return cursor.fetchone() if cursor.description else None

    def rows(self, statement: str) -> List[dict]:
        """Run one statement and return its rows, by the names of their columns."""
        cursor = self._connection.cursor()
        cursor.execute(statement)
        self._finish()
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]

    def wait(self, seconds: float) -> list:
        """Wait for notifications, at most so many seconds, and return them, oldest first."""
        if not self._connection.notifies and self._waker.wait(seconds, self._connection):
            self._connection.poll()
        heard = list(self._connection.notifies)
        del self._connection.notifies[:]
        return heard

    def place(self) -> str:
        """Return ``host:port``."""
        host = self.info.host
        return f"[{host}]:{self.info.port}" if ":" in host else f"{host}:{self.info.port}"

    def close(self) -> None:
        self._waker.release()
        if self._connection is not None:
            self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def _finish(self, timeout: Optional[float] = None) -> None:
        timeout = timeout or self._timeout
        deadline = time.monotonic() + timeout
        while True:
            self._reached = self._reached or self._connection.info.status not in NOT_REACHED
            state = self._connection.poll()
            if state == POLL_OK:
                return
            events = selectors.EVENT_WRITE if state == POLL_WRITE else selectors.EVENT_READ
            # libpq takes a poll for the sign that the socket is ready: it would go on in the
            # middle of connecting
            while not self._waker.wait(self._slice(deadline), self._connection, events):
                if time.monotonic() >= deadline:
                    raise psycopg2.OperationalError(f"no answer within {timeout:g} s")
                if self.meanwhile:
                    self.meanwhile()
            # libpq may go on with another socket of the same number
            self._waker.release()

    def _slice(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        return min(left, 1.0) if self.meanwhile else left
