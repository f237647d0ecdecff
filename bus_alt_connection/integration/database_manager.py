# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the database manager gets: its list of databases, and where pg_dump and its like connect."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Callable, Collection

import psycopg2

from ..config.libpq import libpq_environ
from ..config.parameters import Settings
from ..config.timing import CHECK_TIMEOUT
from ..postgres.proof import NotProven, Proven, prove
from ..postgres.session import Session, one_line

_logger = logging.getLogger("odoo.addons.bus_alt_connection.manager")

OTHER_NAME = (
    "the pooler's database {} is {}: a tool of PostgreSQL is given the first name, which leads"
    " elsewhere on the direct connection. Let the pooler and PostgreSQL call it the same."
)
SEVERAL = "it is not known for which database; they are not at one address: {}"
NOT_DIRECT = (
    "pg_dump and its like go where db_host and db_port point, and may disturb other sessions of the"
    " pooler: %s"
)


IS_ODOOS_SQL = "SELECT to_regclass('ir_module_module')::text"


class DatabaseList:
    """Odoo's databases without the system database, whatever its name.

    Where an account has no other, the system database is one of Odoo's own, and stays.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._is_odoos: bool | None = None  # not known yet

    def __call__(self, list_dbs, *args, **kwargs) -> list[str]:
        """Return what Odoo lists (``list_dbs``), but for a system database that is not its own."""
        databases, system = list_dbs(*args, **kwargs), self._settings.database
        if system not in databases or self._stays():
            return databases
        return [name for name in databases if name != system]

    def _stays(self) -> bool:
        if self._is_odoos is None:
            try:
                with Session(self._settings.pooled, CHECK_TIMEOUT) as session:
                    self._is_odoos = session.run(IS_ODOOS_SQL) != (None,)
            except psycopg2.Error:
                return True  # to list one too many does less harm
        return self._is_odoos


class Tools:
    """Where pg_dump, pg_restore and psql connect.

    Through a pooler in transaction mode ``pg_dump`` leaves its ``search_path`` behind on server
    connections that other users get next.

    :param list_databases: returns the databases of Odoo's that this process knows
    """

    def __init__(self, settings: Settings, list_databases: Callable[[], Collection[str]]):
        self._settings, self._list_databases = settings, list_databases
        self._thread = threading.local()  # .database: that the tool of this thread is given

    def dump(self, dump_db, *args, **kwargs):
        """Back up a database (``dump_db``)."""
        with self._working_on(*args, **kwargs):
            return dump_db(*args, **kwargs)

    def restore(self, restore_db, *args, **kwargs):
        """Restore a database (``restore_db``).

        :raises NotProven: before it is created, where the servers differ
        """
        try:
            prove(self._settings.direct, self._settings.pooled, self._settings.database)
        except psycopg2.OperationalError as error:
            # else the role may not connect to this database; the new one is proven by itself
            if isinstance(error, NotProven):
                raise
        with self._working_on(*args, **kwargs):
            return restore_db(*args, **kwargs)

    @contextlib.contextmanager
    def _working_on(self, *args, **kwargs):
        # the first argument, whatever each series calls it
        self._thread.database = args[0] if args else next(iter(kwargs.values()))
        try:
            yield
        finally:
            self._thread.database = None

    def environ(self, exec_pg_environ: Callable[[], dict], *args, **kwargs) -> dict[str, str]:
        """Return the environment of a tool, with libpq's variables.

        :raises psycopg2.OperationalError: where the direct connection to the database that it is
            about is not proven: a wrong backup is worse than none
        """
        environ = exec_pg_environ(*args, **kwargs)
        database = getattr(self._thread, "database", None)
        if database:
            return libpq_environ(environ, self._prove(database).parameters)
        return self._environ_of_any(environ)

    def _prove(self, database: str) -> Proven:
        """Find and prove the direct connection to a database that a tool is given the name of.

        :raises NotProven: also where the name means another database there
        """
        proven = prove(self._settings.direct, self._settings.pooled, database)
        if proven.route.database != database:
            raise NotProven(OTHER_NAME.format(database, proven.route.end))
        return proven

    def _environ_of_any(self, environ: dict) -> dict[str, str]:
        """Return the environment of a tool that another addon runs, for any database."""
        try:
            found = [self._prove(database) for database in self._list_databases()]
            if len({proven.address for proven in found}) != 1:
                raise NotProven(SEVERAL.format(", ".join(each.route.end for each in found)))
            proven = found[0]
        except psycopg2.OperationalError as error:
            _logger.warning(NOT_DIRECT, one_line(error))
            return environ
        return libpq_environ(environ, proven.parameters)
