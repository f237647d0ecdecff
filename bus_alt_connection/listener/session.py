# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The session of a listener: with a primary, direct; and why it may not receive anything."""

from __future__ import annotations

from typing import Iterable, Mapping

import psycopg2
from psycopg2.extensions import Notify

from ..config.libpq import connect_timeout
from ..config.settings import AUTO
from ..config.timing import ROUTE_TIMEOUT
from ..postgres.hosts import PrimaryUnavailable
from ..postgres.pool_mode import PoolMode
from ..postgres.route import list_attempts, read_route
from ..postgres.session import OnWait, ServerIdentity, Session, one_line
from ..postgres.wakeup import Wakeup
from .status import Failure

NO_ROUTE = "where PostgreSQL is cannot be asked (imdispatcher_db_host = auto): {}"
STANDBY = "{} is a standby, which cannot LISTEN: name the primary in imdispatcher_db_host, or all"
POOLER = "{} is a pooler, not PostgreSQL (it lent backend {} to a session that began as backend {})"
NOT_HEARD = "a NOTIFY on the pooled connection (Odoo's db_host and db_port) was not heard at {}"
ANOTHER_SERVER = ": db_host leads to another server (it started {}, this one {})"
ANOTHER_DATABASE = ": db_host leads to database {}, LISTEN is in {}"

IDENTITY_SQL = "SELECT pg_backend_pid(), pg_is_in_recovery(), current_database()"
TLS_VERSION_SQL = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
# idle_session_timeout (PostgreSQL 14) would end the idle listener; with the keepalives PostgreSQL
# notices within 25 s that the listener's host is gone. The join leaves out settings that this
# version does not have, and count makes it one row.
SESSION_SETTINGS_SQL = """
    SELECT count(set_config(name, value, false)) FROM pg_settings JOIN (VALUES
        ('idle_session_timeout', '0'), ('tcp_keepalives_idle', '10'),
        ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')
    ) AS wanted (name, value) USING (name)
"""


class StandbyError(PrimaryUnavailable):
    """The server is a standby."""

    advice = "Set imdispatcher_db_host to the primary, or to all servers, separated by commas."


class ProbeTimeout(Exception):
    """The session is there, but a probe was not received in it."""

    advice = ""


class PoolerError(ProbeTimeout):
    """The session is one with a pooler."""

    advice = "Set imdispatcher_db_host and imdispatcher_db_port to PostgreSQL itself."


class AnotherServerError(ProbeTimeout):
    """The pooled connection leads to another server."""

    advice = "Set imdispatcher_db_host to the server that the pooler leads to."


class AnotherDatabaseError(ProbeTimeout):
    """The pooled connection leads to another database."""

    advice = "See [databases] of the pooler, and imdispatcher_db_name."


class Router:
    """Opens the sessions of a listener: with the host that is set or, for ``auto``, with the one to
    which the pooled connection leads.

    :param pooled: libpq's parameters of the pooled connection to the system database
    """

    def __init__(self, pooled: Mapping[str, str]):
        self._pooled, self._pool_mode = pooled, PoolMode()
        self._last: list[dict[str, str]] = []  # for the time when the pooler is away
        self._rotation = 0  # at which it was found

    def open(
        self, parameters: Mapping[str, str], wakeup: Wakeup, rotation: int, on_wait: OnWait
    ) -> ListenSession:
        """Open a session; parameters and errors as ``ListenSession``."""
        candidates = [parameters]
        if parameters.get("host") == AUTO:
            candidates = self._find(parameters, wakeup, rotation, on_wait)
        # first each of them, then the next address of each
        address_rotation, i = divmod(rotation, len(candidates))
        session = ListenSession(candidates[i], 0, wakeup, address_rotation, on_wait)
        session.skipped = session.address_index * len(candidates)
        return session

    def _find(
        self, parameters: Mapping[str, str], wakeup: Wakeup, rotation: int, on_wait: OnWait
    ) -> list[dict[str, str]]:
        """Return the parameters that may lead where the pooled connection leads, the best first.

        :param rotation: which address of the pooler comes first
        :raises PrimaryUnavailable: where the pooler does not answer, and never did
        """
        # a session that was lost may come back at once; after a failure the last answer may be old
        hurry = self._last and rotation == self._rotation
        timeout = ROUTE_TIMEOUT if hurry else connect_timeout(parameters)
        try:
            with Session(self._pooled, timeout, wakeup, rotation, on_wait) as session:
                route = read_route(session, self._pooled["dbname"])
                self._last = list_attempts(parameters, self._pooled, route)
                self._rotation = rotation
                if self._pool_mode.is_transaction(session):
                    self._last.pop()  # the pooler itself would not receive anything
        except psycopg2.Error as error:
            if not self._last:
                raise PrimaryUnavailable(NO_ROUTE.format(one_line(error))) from None
        return self._last


class ListenSession(Session):
    """A session with a primary.

    :ivar skipped: so many attempts would have been with addresses before the one that was reached
    :raises StandbyError: else as ``Session``
    """

    skipped = 0

    def _on_connect(self) -> None:
        self.backend, standby, database = self.run(IDENTITY_SQL)
        if standby:
            raise StandbyError(STANDBY.format(self.endpoint))
        self.server = ServerIdentity(database, self.server_start_time())
        (self.tls,) = self.run_optional(TLS_VERSION_SQL) or (None,)
        self.run_optional(SESSION_SETTINGS_SQL)

    def listen(self, channels: Iterable[str]) -> None:
        """LISTEN on these channels."""
        # moves the queue past entries whose transaction PostgreSQL has forgotten; LISTEN
        # would fail on them: "could not access status of transaction"
        self.run_optional("SELECT pg_notification_queue_usage()")
        for channel in channels:
            self.run(f"LISTEN {channel}")

    def describe(self) -> str:
        """Return what the log says of it."""
        version = self.connection.get_parameter_status("server_version")
        database = f"database {self.server.database}"
        return f"{self.endpoint}, PostgreSQL {version}, {database}, backend {self.backend}"

    def explain_missed_probe(self, notified: ServerIdentity | None, seconds: float) -> ProbeTimeout:
        """Return why a NOTIFY on the pooled connection may not have arrived within so many seconds.

        :param notified: the server that took it
        """
        # a pooler answers the start-up message itself, with a backend that does not exist
        first = self.connection.get_backend_pid()
        if self.backend != first:
            return PoolerError(POOLER.format(self.endpoint, self.backend, first))
        text = NOT_HEARD.format(self.endpoint)
        own = self.server
        times = notified and (notified.start_time, own.start_time)
        if times and all(times) and times[0] != times[1]:
            return AnotherServerError(text + ANOTHER_SERVER.format(*times))
        if notified and notified.database != own.database:
            names = notified.database, own.database
            return AnotherDatabaseError(text + ANOTHER_DATABASE.format(*names))
        return ProbeTimeout(f"{text} within {seconds:g} s: it does not answer any more")


def by_channel(notifications: Iterable[Notify]) -> dict[str, list[str]]:
    """Return the payloads of each channel, oldest first."""
    payloads: dict[str, list[str]] = {}
    for notification in notifications:
        payloads.setdefault(notification.channel, []).append(notification.payload)
    return payloads


def classify(error: Exception, session: ListenSession | None) -> tuple[Failure, str]:
    """Return what an error means, and its text for the log.

    :param session: that it ended, if there was one
    """
    if isinstance(error, ProbeTimeout):
        return Failure.DEAF, one_line(error)
    if session:
        return Failure.LOST, f"{session.endpoint}: {one_line(error)}"
    unavailable = isinstance(error, PrimaryUnavailable)
    return Failure.NOT_THERE if unavailable else Failure.REFUSED, one_line(error)
