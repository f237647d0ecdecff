# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Module loading gets a session of its own, straight to PostgreSQL, where it needs one.

Installing, updating and removing modules takes long transactions, changes tables and sets
``lock_timeout`` for its session. From 20.0 on each load of a registry takes session locks as well
(``Registry.new``). Behind a pooler these stay on connections that others get next. So such a load
works on a direct connection to Odoo's own database, as Odoo's own role, with Odoo's own cursor.

Before 20.0 a plain load needs no session: its ``lock_timeout`` then is for its transaction only.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import tempfile
import threading
import time
from typing import Dict, Iterator, Mapping

import psycopg2

import odoo
from odoo.exceptions import UserError

from .session import one_line, primary
from .settings import SECRET

_logger = logging.getLogger(__name__)

# Loads at a time, of all processes that one server has forked, and connections of each. A load
# keeps a core busy, so more of them would not end sooner; the others wait.
SLOTS = 4
CONNECTIONS = 4

NOT_UPDATED = (
    "bus_alt_connection: modules of {} cannot be updated now: the direct connection"
    " (imdispatcher_db_*) is not there, and behind a pooler an update may spoil what others do: {}"
)
PLAIN = "%s is loaded on the pooled connection, without locks that last: no direct connection: %s"

# what a load sets or locks for a session, and the same for its transaction
FOR_SESSION = {
    "SET SESSION lock_timeout": "SET LOCAL lock_timeout",
    "lock_shared(hashtext('registry_": "xact_lock_shared(hashtext('registry_",
}
EXCLUSIVE = "pg_advisory_lock(hashtext('registry_"
FIRST_WORDS = ("SET SESSION lock_timeout", "SELECT pg_advisory_lock")

# the arguments of ``Registry.new`` that ask for more than a plain load
UPDATES = ("update_module", "install_modules", "upgrade_modules", "reinit_modules")


class Loader:
    """Gives module loading its sessions; one for a server and all processes that it forks.

    :param parameters: libpq's, of a direct connection as Odoo's own role
    """

    def __init__(self, parameters: Mapping[str, str]):
        self._parameters = parameters
        # direct ``odoo.sql_db.Connection``, by the thread that loads and its database
        self._direct: Dict[tuple, odoo.sql_db.Connection] = {}
        # a file without name or content: each byte of it that is locked is a slot that is taken
        if hasattr(os, "memfd_create"):  # needs no folder; Python 3.8
            self._slots = os.memfd_create("bus_alt_connection")
        else:
            self._slots = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the server)
        self._lock = threading.RLock()

    def connection(self, database: str):
        """Return what this thread's load of the database works on, if that is a session."""
        return self._direct.get((threading.get_ident(), database))

    @contextlib.contextmanager
    def session(self, database: str, update: bool) -> Iterator[None]:
        """Let this thread's cursors of the database's registry be direct ones.

        :param update: the load cannot do without
        :raises UserError: for an update, where the direct connection is not there
        """
        with contextlib.ExitStack() as stack:
            try:
                if self.connection(database) is None:
                    self._take_slot(stack)
                    self._connect(stack, database)
            except psycopg2.OperationalError as error:
                if update:
                    raise UserError(NOT_UPDATED.format(database, one_line(error))) from None
                stack.close()
                _logger.warning(PLAIN, database, one_line(error))
            yield

    def _take_slot(self, stack: contextlib.ExitStack) -> None:
        """Take a slot; the kernel frees those of a process that was killed."""
        # the locks of a file are a process's; it loads one registry at a time
        stack.enter_context(self._lock)
        for slot in itertools.cycle(range(SLOTS)):
            try:
                fcntl.lockf(self._slots, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                break
            except (BlockingIOError, PermissionError):  # taken
                time.sleep(0.05 / SLOTS)
        stack.callback(fcntl.lockf, self._slots, fcntl.LOCK_UN, 1, slot)

    def _connect(self, stack: contextlib.ExitStack, database: str) -> None:
        name = self._parameters["application_name"].replace("{pid}", str(os.getpid()))
        # fails now, and in time: psycopg2's own way has no limit in the gevent process
        dsn = primary({**self._parameters, "dbname": database, "application_name": name})
        public = {key: dsn[key] for key in dsn if not SECRET.search(key)}
        pool = _Pool(dsn)
        stack.callback(pool.close_all)
        connection = odoo.sql_db.Connection(pool, database, public)
        connection.cursor().close()  # connects, or fails now
        key = threading.get_ident(), database
        self._direct[key] = connection
        stack.callback(self._direct.pop, key)

    def load_modules(self, stock, registry, *args, **kwargs):
        """Install, update and remove modules (``load_modules``) in a session."""
        # 14.0 hands over the registry's connection; up to 18.0 the third of args tells
        if not kwargs.get("update_module", args[2] if len(args) > 2 else False):
            return stock(registry, *args, **kwargs)
        database = getattr(registry, "db_name", None) or registry.dbname
        with self.session(database, update=True):
            return stock(registry, *args, **kwargs)

    def new_registry(self, stock, db_name, *args, **kwargs):
        """Load a registry as 20.0 does (``Registry.new``), with session locks, in a session."""
        # first of the two locks, as where Odoo itself calls it from ``Registry.__new__``
        lock = getattr(getattr(stock, "__self__", None), "_lock", self._lock)
        with lock, self.session(db_name, any(kwargs.get(name) for name in UPDATES)):
            return stock(db_name, *args, **kwargs)

    def for_transaction(self, database: str, query: str) -> str:
        """Return a statement that leaves nothing behind on a pooled connection.

        :raises UserError: for one that only a session can do
        """
        if query.startswith(FIRST_WORDS) and self.connection(database) is None:
            if EXCLUSIVE in query:
                raise UserError(NOT_UPDATED.format(database, "see the log"))
            for session, transaction in FOR_SESSION.items():
                query = query.replace(session, transaction)
        return query


class _Pool(odoo.sql_db.ConnectionPool):
    """Odoo's own, which alone gets the passwords: a connection's parameters stand in its log."""

    def __init__(self, parameters: Mapping[str, str]):
        super().__init__(CONNECTIONS)
        self._parameters = parameters

    def borrow(self, _connection_info):
        return super().borrow(self._parameters)

    def _debug(self, *args):
        """Say nothing: it would show the parameters."""


class RegistryConnection:
    """Stands where a registry keeps its ``odoo.sql_db.Connection``; lends a session's cursors
    to the thread that loads it."""

    def __init__(self, pooled, loader: Loader):
        self._pooled, self._loader = pooled, loader

    def __getattr__(self, name):
        return getattr(self._pooled, name)

    def cursor(self, *args, **kwargs):
        """Return a cursor of Odoo's, direct or pooled."""
        direct = self._loader.connection(self._pooled.dbname)
        return (self._pooled if direct is None else direct).cursor(*args, **kwargs)
