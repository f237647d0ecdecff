# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Pooled connections to the system database, kept instead of closed.

Odoo sends each NOTIFY on a connection to the system database, which ``Cursor._close`` never
gives back to the pool (14.0 to 19.0): every commit with a notification connects anew, and
most of its time goes into that. Behind a pooler an open connection costs PostgreSQL nothing.
Nor does a NOTIFY that comes first in its transaction wait for BEGIN and COMMIT.
"""

import logging
import re
import selectors
import threading
import time
import types
from typing import Dict

import psycopg2

import odoo
from odoo.sql_db import Connection

_logger = logging.getLogger(__name__)

# seconds; as odoo.sql_db.MAX_IDLE_TIMEOUT, which the first series do not have
IDLE = 600

# as Odoo sends it: "notify imbus, %s" (14.0), SELECT pg_notify(%s, %s), SELECT "pg_notify"(…)
NOTIFY = re.compile(r"\s*(NOTIFY\s|SELECT\s+\"?pg_notify\"?\s*\()", re.IGNORECASE)


class KeepingPool:
    """Stands where a cursor expects Odoo's pool; it is that pool, but for ``give_back``.

    Without a pooler on the normal path it changes nothing.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._idle_since: Dict[psycopg2.extensions.connection, float] = {}
        self._pooled = None

    def connection(self, database: str) -> Connection:
        """Return what ``odoo.sql_db.db_connect`` returned for this database, kept open."""
        return Connection(self, database, odoo.sql_db.connection_info_for(database)[1])

    @property
    def readonly(self) -> bool:
        return getattr(odoo.sql_db._Pool, "readonly", False)

    def borrow(self, dsn):
        with self._lock:
            now = time.monotonic()
            for connection, since in list(self._idle_since.items()):
                if now - since > IDLE:
                    del self._idle_since[connection]
                    connection.close()  # Odoo's pool drops what is closed
            borrowed = odoo.sql_db._Pool.borrow(dsn)
            self._idle_since.pop(borrowed, None)
        if self._pooled:
            borrowed.cursor_factory = NotifyCursor
        return borrowed

    def give_back(self, connection, keep_in_pool=True):
        pooled = self._behind_pooler(connection)
        with self._lock:
            if pooled:
                self._idle_since[connection] = time.monotonic()
                connection.reset = types.MethodType(_reset, connection)
            odoo.sql_db._Pool.give_back(connection, keep_in_pool=keep_in_pool or pooled)

    def _behind_pooler(self, connection) -> bool:
        if self._pooled is None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_backend_pid()")
                    (backend,) = cursor.fetchone()
                connection.rollback()
            except psycopg2.Error:
                return False  # asked again next time
            # a pooler answers the start-up message itself, with a backend that does not exist
            self._pooled = backend != connection.get_backend_pid()
            _logger.debug("connections to the system database are kept: %s", self._pooled)
        return self._pooled


class NotifyCursor(psycopg2.extensions.cursor):
    """Sends a NOTIFY that begins a transaction as a transaction of its own.

    That is one round trip to the pooler instead of three. A rollback does not take it back;
    whoever is woken finds nothing new then.
    """

    def execute(self, query, vars=None):
        connection = self.connection
        idle = connection.status == psycopg2.extensions.STATUS_READY
        if not idle or connection.autocommit or not NOTIFY.match(str(query)):
            return super().execute(query, vars)
        before = connection.isolation_level, connection.readonly
        # what is not the default would be SET, on a server connection that others share
        connection.set_session(isolation_level="DEFAULT", readonly="DEFAULT")
        connection.autocommit = True
        try:
            return super().execute(query, vars)
        finally:
            if not connection.closed:
                connection.autocommit = False
                connection.set_session(*before)


def _reset(connection) -> None:
    """Stand for psycopg2's ``reset``, which Odoo's pool calls before it lends a connection.

    That runs DISCARD ALL, which behind a pooler meets another server connection than the one
    that will be used, and takes as long as the NOTIFY.

    :raises psycopg2.OperationalError: where the other end has closed it; Odoo's pool takes
        another one then
    """
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if selector.select(0):
            raise psycopg2.OperationalError("closed while it was idle")
    connection.rollback()
    connection.autocommit = False
