# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The connection that a listener gets: a session of its own, straight to PostgreSQL."""

import logging
import os
from typing import Dict, Mapping

import psycopg2

import odoo
from odoo.sql_db import Connection, PsycoConnection

from . import parameters, settings

_logger = logging.getLogger(__name__)

NAMEDATALEN = 64  # PostgreSQL cuts application_name at this length, its last byte included

POOLER = (
    "%s: %s is a pooler, not PostgreSQL: it lent backend %s to a session that began as"
    " backend %s, so LISTEN will not hear anything. Set imdispatcher_db_host and"
    " imdispatcher_db_port to PostgreSQL itself."
)


def odoo_parameters(database: str) -> Dict[str, str]:
    """Return the parameters of Odoo's own connections to this database.

    ``odoo.sql_db.connection_info_for`` knows, in each series, ``db_*`` and what of the
    ``PG*`` environment variables counts beside them.
    """
    return odoo.sql_db.connection_info_for(database)[1]


def check(merged: Mapping[str, str], found: Mapping[str, settings.Value]) -> None:
    """Let libpq itself look at the parameters, without connecting anywhere.

    libpq checks its options before it connects, so with a socket folder that does not
    exist only a bad option gives an error that does not name the folder.

    :raises settings.BadSetting: where libpq refuses an option
    """
    nowhere = "/bus_alt_connection/no/such/folder"
    dry = {key: value for key, value in merged.items() if key != "hostaddr"}
    try:
        psycopg2.connect(**{**dry, "host": nowhere, "port": "5432"})
    except psycopg2.Error as error:
        if nowhere not in str(error):
            value = found.get("dsn") or settings.Value("", "Odoo's own db_* settings")
            raise settings.BadSetting(
                "dsn", value, "see libpq's parameter key words", str(error).splitlines()[0]
            ) from None


def direct_connection(
    channel: str, database: str, found: Mapping[str, settings.Value]
) -> Connection:
    """Return what ``odoo.sql_db.db_connect`` returns, for the listener of this channel.

    Its cursors are Odoo's own; behind each is a new session that no pool counts or lends.
    """
    return Connection(DirectPool(channel, database, found), database, {"database": database})


class DirectPool:
    """Stands where a cursor expects Odoo's connection pool: one session per cursor."""

    readonly = False

    def __init__(self, channel: str, database: str, found: Mapping[str, settings.Value]):
        self._channel = channel
        self._database = database
        self._found = found

    def borrow(self, _dsn):
        """Open a session; ``Cursor.__init__`` calls this.

        The parameters come from the settings, not from ``_dsn``: Odoo may log that one.

        :raises psycopg2.OperationalError: when PostgreSQL cannot be reached
        """
        base = odoo_parameters(self._database)
        merged = parameters.merge(self._found, base)
        suffix = f"-{self._channel}"
        name = base.get("application_name") or f"odoo-{os.getpid()}"
        merged.setdefault("application_name", name[: NAMEDATALEN - 1 - len(suffix)] + suffix)
        connection = psycopg2.connect(connection_factory=ListeningConnection, **merged)
        connection.meet(self._channel)
        return connection

    def give_back(self, connection, keep_in_pool=True):
        """Close the session; ``Cursor.close`` calls this."""
        connection.close()


class ListeningConnection(PsycoConnection):
    """A session for one channel; it says in the log what it reached."""

    _channel = ""
    _backend = None
    _listening = False

    def meet(self, channel: str) -> None:
        """Learn who is at the other end, before LISTEN: a query later could swallow a wake-up."""
        self._channel = channel
        with self.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), pg_is_in_recovery()")
            self._backend, standby = cursor.fetchone()
        self.rollback()
        if self._backend != self.info.backend_pid:
            # a pooler answers the start-up message itself
            _logger.error(POOLER, channel, self._place(), self._backend, self.info.backend_pid)
        if standby:
            _logger.error(
                "%s: %s is a standby, which cannot LISTEN; name the primary, or several hosts and"
                " target_session_attrs=read-write in imdispatcher_db_dsn",
                channel,
                self._place(),
            )

    def commit(self):
        """Commit; the first one is the listener's LISTEN."""
        result = super().commit()
        if not self._listening:
            self._listening = True
            _logger.info(
                "%s: listening at %s, PostgreSQL %s, database %s, backend %s",
                self._channel,
                self._place(),
                self.get_parameter_status("server_version"),
                self.info.dbname,
                self._backend,
            )
        return result

    def _place(self) -> str:
        host = self.info.host
        return f"[{host}]:{self.info.port}" if ":" in host else f"{host}:{self.info.port}"
