# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A session with PostgreSQL in which every wait has a deadline and can be ended.

psycopg2's ordinary connections have neither: in Odoo's gevent process libpq does not even
keep its ``connect_timeout`` ("34.1. Database Connection Control Functions" of the libpq
documentation, ``PQconnectPoll``). Its asynchronous ones leave the waiting to us.
"""

import contextlib
import os
import re
import selectors
import socket
import time
from typing import Callable, Dict, Mapping, NamedTuple, Optional

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_WRITE

from .addresses import NobodyThere, resolved
from .waker import LONG, Waker

# in an answer of somebody who is there; the first two are libpq's, for target_session_attrs
NO_PRIMARY = re.compile(
    "read-only|writable connection|hot standby|starting up|shutting down|recovery"
    # HAProxy and cloud gateways hang up at once where they have no server
    "|closed the connection unexpectedly"
)
GUESSES = re.compile(r" (Is the server running on|This probably means the server term)[^?.]*[?.]")

NOBODY = Waker()  # never wakes: for sessions that only their deadlines end


class Server(NamedTuple):
    """Which server a session has met, and in which database."""

    database: str
    started: str  # or nothing, where the role may not know


class Session(contextlib.AbstractContextManager):
    """One session, with whom the first address leads to that takes a connection.

    :param parameters: libpq's; ``{pid}`` in ``application_name`` stands for this process
    :param timeout: of connecting and of each statement, seconds; 0: their ``connect_timeout``
    :param waker: what may end every wait in it
    :param turn: which address comes first, counted from 0, over and over
    :param meanwhile: called some times a second while it connects
    :raises NobodyThere: where nobody is there
    :raises psycopg2.OperationalError: where somebody is, but refuses or does not answer
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        timeout: float = 0,
        waker: Waker = NOBODY,
        turn: int = 0,
        meanwhile: Callable[[], object] = bool,
    ):
        # as libpq has it, 0 is no limit there
        timeout = timeout or float(parameters["connect_timeout"]) or LONG
        self._waker, self._timeout, self._meanwhile = waker, timeout, meanwhile
        self._reached, self.connection = False, None
        wanted = resolved(parameters, timeout, turn, self._while_looking_up)
        host = wanted.get("host") or wanted.get("hostaddr") or "libpq's default host"
        self.place = f"{host}:{wanted.get('port', 5432)}"
        # a worker is forked after the settings were read
        wanted["application_name"] = wanted["application_name"].replace("{pid}", str(os.getpid()))
        try:
            self.connection = psycopg2.connect(async_=True, **wanted)
            self.finish()
            self._look_around(wanted)
            self.meet()
        except psycopg2.OperationalError as error:
            self.close()
            text = one_line(error)
            kind = NobodyThere if not self._reached or NO_PRIMARY.search(text) else type(error)
            named = any(one in text for one in host.split(","))
            raise kind(text if named else f"{self.place}: {text}") from None
        except BaseException:
            self.close()
            raise
        self._meanwhile = bool

    def _look_around(self, wanted: Mapping[str, str]) -> None:
        """Learn which address was reached, and its number in their order, from 0."""
        self.number = 0
        addresses = list(zip(*(wanted.get(key, "").split(",") for key in ("hostaddr", "port"))))
        # a socket in the file system has a name that is none of these
        with contextlib.suppress(OSError, ValueError), self._socket() as one:
            address, port = one.getpeername()[:2]
            self.number = addresses.index((address, str(port)))
        info = getattr(self.connection, "info", None)  # psycopg2 2.7 has none
        if info:
            host = f"[{info.host}]" if ":" in info.host else info.host
            self.place = f"{host}:{info.port}"

    def _socket(self) -> socket.socket:
        return socket.socket(fileno=os.dup(self.connection.fileno()))

    def meet(self) -> None:
        """Learn who is at the other end."""

    def run(self, statement: str) -> Optional[tuple]:
        """Run one statement in a transaction of its own and return its first row, if any."""
        cursor = self.connection.cursor()
        cursor.execute(statement)
        self.finish()
        return cursor.fetchone() if cursor.description else None

    def ask(self, statement: str) -> Optional[tuple]:
        """Run a statement that can be done without: a hardened server may refuse it."""
        try:
            return self.run(statement)
        except psycopg2.ProgrammingError:
            return None

    def started(self) -> str:
        """Return when the server started, if the role may know."""
        (when,) = self.ask("SELECT pg_postmaster_start_time()::text") or ("",)
        return when

    def wait(self, seconds: float) -> list:
        """Wait for notifications, at most so many seconds, and return them, oldest first."""
        if not self.connection.notifies and self._waker.wait(seconds, self.connection):
            self.connection.poll()
        heard, self.connection.notifies = self.connection.notifies, []
        return heard

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def __exit__(self, *exc_info):
        self.close()

    def _while_looking_up(self) -> None:
        self._waker.wait(0)  # may end it
        self._meanwhile()

    def finish(self) -> None:
        """Wait for what is under way.

        :raises psycopg2.Error: where the answer is an error, or the session has ended
        """
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                state = self.connection.poll()
            except UnicodeDecodeError as error:  # a refusal in the server's own encoding
                raise psycopg2.OperationalError(error.object.decode("latin-1")) from None
            if state == POLL_OK:
                return
            # libpq waits to write until somebody is reached, then for an answer
            self._reached = self._reached or state != POLL_WRITE
            events = selectors.EVENT_WRITE if state == POLL_WRITE else selectors.EVENT_READ
            # libpq takes a poll for the sign that the socket is ready: it would go on in the
            # middle of connecting
            while not self._waker.wait(
                min(0.1, deadline - time.monotonic()), self.connection, events
            ):
                if time.monotonic() >= deadline:
                    raise psycopg2.OperationalError(f"no answer within {self._timeout:g} s")
                self._meanwhile()


def primary(parameters: Mapping[str, str]) -> Dict[str, str]:
    """Return the parameters with one address alone: of several, the one that takes a session.

    libpq asks no other host once a standby that lags has answered that it has no such database
    ("34.1.1.3. Specifying Multiple Hosts" of its documentation), and in one session all share the
    time that a silent one uses up.

    :param parameters: libpq's; the hosts of a service file are left to libpq
    :raises psycopg2.OperationalError: as ``Session``, for the last address
    """
    places: list = [{}]
    if "service" not in parameters:
        found = resolved(parameters, float(parameters["connect_timeout"]) or LONG)
        keys = [key for key in ("host", "hostaddr", "port") if key in found]
        each = zip(*(found[key].split(",") for key in keys))
        places = [dict(zip(keys, place)) for place in each] or places
    if len(places) > 1:  # of one name, too
        parameters = {"target_session_attrs": "read-write", **parameters}
    for place in places:
        one = {**parameters, **place}
        try:
            Session(one).close()
            return one
        except psycopg2.OperationalError as error:
            last = error
    raise last


def one_line(error: Exception) -> str:
    """Return an error's text in one line, without libpq's guesses."""
    text = " ".join(str(error).split()) or repr(error)
    return GUESSES.sub("", text).strip().rstrip(".")
