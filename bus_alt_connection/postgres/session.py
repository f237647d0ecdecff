# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A session with PostgreSQL in which every wait has a deadline and can be ended.

psycopg2's ordinary connections have neither: in Odoo's gevent process libpq does not even
keep its ``connect_timeout`` ("34.1. Database Connection Control Functions" of the libpq
documentation, ``PQconnectPoll``). Its asynchronous ones leave the waiting to the caller.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import selectors
import socket
import time
from typing import Callable, Mapping, NamedTuple, Optional

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_WRITE

from ..config.libpq import connect_timeout, endpoint, expand_pid
from ..config.timing import NEVER, POLL_INTERVAL
from .hosts import PrimaryUnavailable, resolve_hosts
from .wakeup import Wakeup

# texts of servers that are not (yet) a primary; the first two are libpq's (target_session_attrs)
NO_PRIMARY = re.compile(
    "read-only|writable connection|hot standby|starting up|shutting down|recovery"
    # HAProxy and cloud gateways hang up at once where they have no server
    "|closed the connection unexpectedly"
)
LIBPQ_HINTS = re.compile(
    r" (Is the server running on|This probably means the server term)[^?.]*[?.]"
)

# one text for one instant: a role may have a timezone and a datestyle of its own
START_TIME_SQL = """
    SELECT to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')
"""

UNINTERRUPTED = Wakeup()  # never wakes: for sessions that only their deadlines end

OnWait = Optional[Callable[[], object]]


class ServerIdentity(NamedTuple):
    """The server at the other end of a session, and the database there."""

    database: str
    start_time: str  # empty where the role may not know


class Session(contextlib.AbstractContextManager):
    """One session with the first of some addresses that takes a connection.

    :param parameters: libpq's; ``{pid}`` in ``application_name`` stands for this process
    :param timeout: of connecting and of each statement, seconds; 0: their ``connect_timeout``
    :param wakeup: what may end every wait in it
    :param rotation: which address comes first, counted from 0, over and over
    :param on_wait: called some times a second while it connects
    :raises PrimaryUnavailable: where no primary is reached
    :raises psycopg2.OperationalError: where a server refuses, or does not answer
    :ivar deadline: when every wait in it ends, whatever its timeout; monotonic seconds
    """

    deadline = NEVER

    def __init__(
        self,
        parameters: Mapping[str, str],
        timeout: float = 0,
        wakeup: Wakeup = UNINTERRUPTED,
        rotation: int = 0,
        on_wait: OnWait = None,
    ):
        self._timeout = timeout or connect_timeout(parameters)
        self._wakeup, self._on_wait = wakeup, on_wait

        def while_looking_up():
            wakeup.wait(0)  # may end it
            if on_wait:
                on_wait()

        resolved = resolve_hosts(parameters, self._timeout, rotation, while_looking_up)
        self._parameters = resolved
        self.endpoint = endpoint(resolved)
        hosts = self.endpoint.rpartition(":")[0]
        self._socket_connected = False
        try:
            self.connection = psycopg2.connect(async_=True, **expand_pid(resolved))
        except psycopg2.OperationalError as error:
            raise self._refusal(error, hosts) from None
        try:
            self.wait_ready()
            self.address_index = self._record_peer(resolved)
            self._on_connect()
            self._on_wait = None
        except psycopg2.OperationalError as error:
            self.close()
            raise self._refusal(error, hosts) from None
        except BaseException:
            self.close()
            raise

    def _refusal(self, error: psycopg2.OperationalError, hosts: str) -> psycopg2.OperationalError:
        """Return the error with the endpoint in its text, and as what the caller can tell apart."""
        text = one_line(error)
        unavailable = not self._socket_connected or NO_PRIMARY.search(text)
        if not any(host in text for host in hosts.split(",")):
            text = f"{self.endpoint}: {text}"
        return (PrimaryUnavailable if unavailable else type(error))(text)

    def _record_peer(self, resolved: Mapping[str, str]) -> int:
        """Learn which address was reached, and return its index in their order."""
        index, self.peer_is_loopback = 0, True  # a socket in the file system is on this machine
        addresses = list(zip(*(resolved.get(key, "").split(",") for key in ("hostaddr", "port"))))
        # a socket in the file system has a name that is none of these
        with contextlib.suppress(OSError, ValueError), self._socket() as own:
            address, port = own.getpeername()[:2]
            self.peer_is_loopback = ipaddress.ip_address(address).is_loopback
            index = addresses.index((address, str(port)))
        info = getattr(self.connection, "info", None)  # psycopg2 2.7 has none
        if info:
            host = f"[{info.host}]" if ":" in info.host else info.host
            self.endpoint = f"{host}:{info.port}"
        return index

    def _socket(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self.connection.fileno()))

    def another(self, seconds: float) -> Session:
        """Open a second session like this one, with the same address first, and its deadline.

        :param seconds: of connecting and of each statement in it
        """
        seconds = min(seconds, max(0.001, self.deadline - time.monotonic()))  # 0 is no limit
        session = Session(self._parameters, seconds, self._wakeup, self.address_index)
        session.deadline = self.deadline
        return session

    def _on_connect(self) -> None:
        """Learn what is at the other end."""

    def run(self, statement: str) -> tuple | None:
        """Run one statement in a transaction of its own and return its first row, if any."""
        cursor = self.connection.cursor()
        cursor.execute(statement)
        self.wait_ready()
        return cursor.fetchone() if cursor.description else None

    def run_optional(self, statement: str) -> tuple | None:
        """Run a statement that can be done without: a hardened server may refuse it."""
        try:
            return self.run(statement)
        except psycopg2.ProgrammingError:
            return None

    def server_start_time(self) -> str:
        """Return when the server started, if the role may know."""
        row = self.run_optional(START_TIME_SQL)
        return row[0] if row else ""

    def wait(self, seconds: float) -> list:
        """Wait for notifications, at most so many seconds, and return them, oldest first."""
        if not self.connection.notifies and self._wakeup.wait(seconds, self.connection):
            self.connection.poll()
        notifications, self.connection.notifies = self.connection.notifies, []
        return notifications

    def pin(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters with what libpq took from a service file, in its place.

        Programs would take its role, and may be given another one than this session has.
        """
        if "service" not in parameters:
            return dict(parameters)
        used = self.connection.get_dsn_parameters()  # without passwords
        info = getattr(self.connection, "info", None)  # psycopg2 2.7 has none
        if info and "host" in used:
            used.update(host=info.host, port=str(info.port))
        pinned = {**used, **parameters}
        del pinned["service"]
        return pinned

    def close(self) -> None:
        self.connection.close()

    def __exit__(self, *exc_info):
        self.close()

    def wait_ready(self) -> None:
        """Wait for what is under way: connecting, or the answer to a statement.

        :raises psycopg2.Error: where the answer is an error, or the session has ended
        """
        deadline = min(time.monotonic() + self._timeout, self.deadline)
        while True:
            try:
                state = self.connection.poll()
            except UnicodeDecodeError as error:  # a refusal in the server's own encoding
                raise psycopg2.OperationalError(error.object.decode("latin-1")) from None
            if state == POLL_OK:
                return
            # while libpq wants to write, the socket is not connected yet
            self._socket_connected = self._socket_connected or state != POLL_WRITE
            events = selectors.EVENT_WRITE if state == POLL_WRITE else selectors.EVENT_READ
            # libpq takes a poll for the sign that the socket is ready: it would go on in the
            # middle of connecting
            while not self._wakeup.wait(
                min(POLL_INTERVAL, deadline - time.monotonic()), self.connection, events
            ):
                if time.monotonic() >= deadline:
                    raise psycopg2.OperationalError(f"no answer within {self._timeout:g} s")
                if self._on_wait:
                    self._on_wait()


def one_line(error: BaseException) -> str:
    """Return an error's text in one line, without libpq's hints."""
    text = " ".join(str(error).split()) or repr(error)
    return LIBPQ_HINTS.sub("", text).strip().rstrip(".")
