# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Module loading gets a session of its own, directly to PostgreSQL, where it needs one.

Installing, updating and removing modules takes long transactions, changes tables and sets
``lock_timeout`` for its session. From 20.0 on each load of a registry takes session locks as well
(``Registry.new``). Behind a pooler these stay on connections that other sessions get next. So such
a load works on a direct connection to Odoo's own database, as Odoo's own role, with Odoo's own
cursor.

Before 20.0 a plain load needs no session: its ``lock_timeout`` then is for its transaction only.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Iterator, Mapping

import psycopg2

import odoo
from odoo.exceptions import UserError

from ..config.parameters import Settings
from ..config.values import SECRET
from ..postgres.proof import prove
from ..postgres.session import one_line
from ..postgres.slots import Slots

_logger = logging.getLogger("odoo.addons.bus_alt_connection.loading")

# a load keeps a core busy, so more of them would not end sooner; the others wait
MAX_LOADS = 4
MAX_CONNECTIONS_PER_LOAD = 4

NOT_UPDATED = (
    "bus_alt_connection: modules of {} cannot be updated now: the direct connection"
    " (imdispatcher_db_*) is not there, and behind a pooler an update may spoil what others do: {}"
)
LOADED_POOLED = (
    "%s is loaded on the pooled connection, without locks that last: no direct connection: %s"
)

# what a load sets or locks for a session, and the same for its transaction
TRANSACTION_SCOPED = {
    "SET SESSION lock_timeout": "SET LOCAL lock_timeout",
    "lock_shared(hashtext('registry_": "xact_lock_shared(hashtext('registry_",
}
EXCLUSIVE = "pg_advisory_lock(hashtext('registry_"
STATEMENT_PREFIXES = ("SET SESSION lock_timeout", "SELECT pg_advisory_lock")

# the arguments of ``Registry.new`` that ask for more than a plain load
UPDATE_ARGUMENTS = ("update_module", "install_modules", "upgrade_modules", "reinit_modules")


class ModuleLoading:
    """Gives module loading its sessions; one for a server and all processes that it forks."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._slots = Slots(MAX_LOADS)
        # direct connections, by the thread that loads and its database
        self._direct: dict[tuple, odoo.sql_db.Connection] = {}

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
            if self.connection(database) is None:
                try:
                    stack.enter_context(self._direct_connection(database))
                except psycopg2.OperationalError as error:
                    if update:
                        raise UserError(NOT_UPDATED.format(database, one_line(error))) from None
                    _logger.warning(LOADED_POOLED, database, one_line(error))
            yield

    @contextlib.contextmanager
    def _direct_connection(self, database: str) -> Iterator[None]:
        """Give this thread a direct connection to the database.

        :raises psycopg2.OperationalError: where there is none
        """
        with self._slots.take():
            # fails now, and in time: psycopg2's own way has no limit in the gevent process
            proven = prove(self._settings.direct, self._settings.pooled, database)
            proven.check_update()
            key, pool = (threading.get_ident(), database), DirectPool(proven.parameters)
            try:
                connection = pool.connection(database)
                connection.cursor().close()  # connects, or fails now
                self._direct[key] = connection
                yield
            finally:
                self._direct.pop(key, None)
                pool.close_all()

    def load_modules(self, load_modules, registry, *args, **kwargs):
        """Install, update and remove modules (``load_modules``) in a session, whatever gave the
        registry its connection."""
        pooled = getattr(registry, "_db", None)
        if pooled is not None and not isinstance(pooled, RegistryConnection):
            registry._db = RegistryConnection(pooled, self)
        # 14.0 hands over the registry's connection; up to 18.0 the third of args tells
        if not kwargs.get("update_module", args[2] if len(args) > 2 else False):
            return load_modules(registry, *args, **kwargs)
        database = getattr(registry, "db_name", None) or registry.dbname
        with self.session(database, update=True):
            return load_modules(registry, *args, **kwargs)

    def new_registry(self, new, db_name, *args, **kwargs):
        """Load a registry as 20.0 does (``Registry.new``), with session locks, in a session."""
        # first of the two locks, as where Odoo itself calls it from ``Registry.__new__``
        lock = getattr(getattr(new, "__self__", None), "_lock", contextlib.nullcontext())
        with lock, self.session(db_name, any(kwargs.get(name) for name in UPDATE_ARGUMENTS)):
            return new(db_name, *args, **kwargs)


def for_transaction(database: str, query: str) -> str:
    """Return a statement of a load that leaves nothing behind on a pooled connection.

    :raises UserError: for one that only a session can do
    """
    if query.startswith(STATEMENT_PREFIXES):
        if EXCLUSIVE in query:
            raise UserError(NOT_UPDATED.format(database, "see the log"))
        for session, transaction in TRANSACTION_SCOPED.items():
            query = query.replace(session, transaction)
    return query


class DirectPool(odoo.sql_db.ConnectionPool):
    """Odoo's own, which alone gets the passwords: a connection's parameters stand in its log."""

    def __init__(self, parameters: Mapping[str, str]):
        super().__init__(MAX_CONNECTIONS_PER_LOAD)
        self._parameters = parameters

    def connection(self, database: str) -> odoo.sql_db.Connection:
        """Return what gives cursors on connections of this pool."""
        public = {key: text for key, text in self._parameters.items() if not SECRET.search(key)}
        return odoo.sql_db.Connection(self, database, public)

    def borrow(self, _connection_info):
        return super().borrow(self._parameters)

    def _debug(self, *args):
        """Log nothing: it would show the parameters."""


class RegistryConnection:
    """Stands where a registry keeps its ``odoo.sql_db.Connection``.

    It gives a session's cursors to the thread that loads the registry.
    """

    def __init__(self, pooled, module_loading: ModuleLoading):
        self._pooled, self._module_loading = pooled, module_loading

    def __getattr__(self, name):
        return getattr(self._pooled, name)

    def cursor(self, *args, **kwargs):
        """Return a cursor of Odoo's, direct or pooled."""
        direct = self._module_loading.connection(self._pooled.dbname)
        return (self._pooled if direct is None else direct).cursor(*args, **kwargs)
