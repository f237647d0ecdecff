# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The session of a listener: with a primary, straight."""

from typing import Iterable, Optional

from .addresses import NobodyThere
from .session import Server, Session

STANDBY = "{} is a standby, which cannot LISTEN: name the primary in imdispatcher_db_host, or all"
POOLER = "{} is a pooler, not PostgreSQL (it lent backend {} to a session that began as backend {})"
NOT_HEARD = "a NOTIFY on the pooled connection (Odoo's db_host and db_port) was not heard at {}"
ANOTHER_SERVER = ": db_host leads to another server (it started {}, this one {})"
ANOTHER_DATABASE = ": db_host leads to database {}, LISTEN is in {}"

MEET = "SELECT pg_backend_pid(), pg_is_in_recovery(), current_database()"
TLS = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
# A cluster may end sessions that are idle, as a listener is (PostgreSQL 14); and PostgreSQL's own
# keepalives let a backend end within 25 s where the network took away the listener.
SET = """
    SELECT count(set_config(name, value, false)) FROM pg_settings JOIN (VALUES
        ('idle_session_timeout', '0'), ('tcp_keepalives_idle', '10'),
        ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')
    ) AS wanted (name, value) USING (name)
"""


class Direct(Session):
    """A session with a primary.

    :raises NobodyThere: a standby; else as ``Session``
    """

    def meet(self) -> None:
        self.backend, standby, database = self.run(MEET)
        if standby:
            raise NobodyThere(STANDBY.format(self.place))
        self.server = Server(database, self.started())
        (self.tls,) = self.ask(TLS) or (None,)
        self.ask(SET)

    def listen(self, channels: Iterable[str]) -> None:
        """LISTEN on these channels."""
        # moves the queue past entries whose transaction PostgreSQL has forgotten; LISTEN
        # would fail on them: "could not access status of transaction"
        self.ask("SELECT pg_notification_queue_usage()")
        for channel in channels:
            self.run(f"LISTEN {channel}")

    def where(self) -> str:
        """Return what the log says of it."""
        version = self.connection.get_parameter_status("server_version")
        database = f"database {self.server.database}"
        return f"{self.place}, PostgreSQL {version}, {database}, backend {self.backend}"

    def why_not_heard(self, met: Optional[Server], seconds: float) -> str:
        """Return why a NOTIFY on the pooled connection may not have been heard within so many s.

        :param met: the server that took it
        """
        # a pooler answers the start-up message itself, with a backend that does not exist
        first = self.connection.get_backend_pid()
        if self.backend != first:
            return POOLER.format(self.place, self.backend, first)
        text = NOT_HEARD.format(self.place)
        if met and met.started and met.started != self.server.started:
            return text + ANOTHER_SERVER.format(met.started, self.server.started)
        if met and met.database != self.server.database:
            return text + ANOTHER_DATABASE.format(met.database, self.server.database)
        return f"{text} within {seconds:g} s: it does not answer any more"
