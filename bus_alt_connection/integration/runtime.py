# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the addon has in this process of Odoo, and what Odoo's functions get from it.

A listening function of Odoo calls ``odoo.sql_db.db_connect`` in its own body, then waits on that
connection; one that sends NOTIFY calls it too, and a registry before its modules are loaded. So
``db_connect`` is replaced by one that looks at its caller: a listening function gets an inbox, a
sending one the outbox, a registry a connection that may be direct, any other what Odoo gives.
Another addon may have wrapped ``db_connect``, so all frames of the stack are looked at. A frame
counts only if its current line calls ``db_connect``: a cron job, called by a listening function at
another line, gets Odoo's own connection.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import logging
import re
import sys
import threading
from types import CodeType, FrameType

import psycopg2

import odoo

from ..config.parameters import DEFAULT_DATABASE, Settings
from ..config.timing import STOP_TIMEOUT
from ..listener.bypass import Bypass
from ..listener.inbox import Inbox, ListenConnection
from ..listener.listener import Listener
from ..outbox.outbox import Outbox
from ..postgres.proof import prove
from ..postgres.session import one_line
from ..sharing.follow import Follower
from ..sharing.sharing import Sharing
from .bus import BusInbox
from .cron import CronInbox
from .loading import DirectPool, ModuleLoading, RegistryConnection, for_transaction
from .odoo_functions import TARGETS, ListenTarget, LoadTarget, ReplaceTarget, SendTarget, Target
from .resolve import Resolution, code_of
from .startup import number_of_server

_logger = logging.getLogger("odoo.addons.bus_alt_connection.hooks")

LISTENING_MODULES = {row.module for row in TARGETS if isinstance(row, ListenTarget)}
NO_DIRECT_LISTEN = (
    "%s.%s listens on the pooled connection, where nothing may arrive: no direct connection: %s"
)
# what a function that listens by itself has among its constants
LISTEN_CONSTANT = re.compile(r"\s*listen\s+(\w+|\"\w+\"|{\w*}|%s)?\s*;?\s*", re.I)


@functools.lru_cache(maxsize=None)
def names_in_line(code: CodeType, line: int) -> frozenset[str]:
    """Return the names that the code uses in a line."""
    starts = [*dis.findlinestarts(code), (len(code.co_code), None)]
    ranges = [(start, starts[i + 1][0]) for i, (start, at) in enumerate(starts) if at == line]
    return frozenset(
        instruction.argval
        for instruction in dis.get_instructions(code)
        if isinstance(instruction.argval, str)
        and any(start <= instruction.offset < end for start, end in ranges)
    )


def is_direct(cursor) -> bool:
    """Tell whether a cursor of Odoo's is one of PostgreSQL's own, not of a pooler."""
    if isinstance(getattr(cursor, "_Cursor__pool", None), DirectPool):
        return True
    try:
        # a pooler answers the start-up message itself, with a backend that does not exist
        cursor._obj.execute("SELECT pg_backend_pid()")
        return cursor._obj.fetchone() == (cursor._cnx.get_backend_pid(),)
    except (psycopg2.Error, AttributeError):
        return False


@functools.lru_cache(maxsize=None)
def listens(code: CodeType) -> bool:
    """Tell whether a function that connects runs LISTEN itself."""
    texts = (text for text in code.co_consts if isinstance(text, str))
    return any(LISTEN_CONSTANT.fullmatch(text) for text in texts)


class OutboxConnection:
    """Stands where Odoo's sending functions expect a connection and its cursor."""

    def __init__(self, outbox: Outbox):
        self._outbox = outbox

    def cursor(self):
        return contextlib.nullcontext(self)  # what was put is sent; nothing is left to do

    def execute(self, query, params=None) -> None:
        """Put a statement into the outbox."""
        # odoo.tools.SQL brings its parameters (17.0 on)
        if hasattr(query, "code"):
            query, params = query.code, query.params
        self._outbox.put(query, params)


class Runtime:
    """The addon's listener, outbox and module loading; one for each process.

    :param version: the addon's
    """

    def __init__(self, settings: Settings, resolution: Resolution, version: str):
        self.settings, self.targets = settings, resolution.found
        self.bypass = Bypass(settings.database, is_direct)
        self._listen_pooled: set = set()  # functions of other addons
        self._sharing = Sharing(settings, version, number_of_server())
        self.outbox = Outbox(settings.pooled)
        self.module_loading = ModuleLoading(settings)
        self._targets_by_code = {
            code_of(row): row for row in self.targets.values() if not isinstance(row, ReplaceTarget)
        }
        self._have_listened: set = set()  # (thread, channel)

    @property
    def listener(self) -> Listener | Follower | None:
        """What is known of this server's listener in this process."""
        return self._sharing.listener

    def list_databases(self) -> list[str]:
        """Return the databases of Odoo's that this process knows."""
        registries = odoo.modules.registry.Registry.registries
        # up to 18.0 a cache with its dictionary in .d
        return list(self.settings.served) or list(getattr(registries, "d", registries))

    def subscribe(self, inbox: Inbox) -> None:
        """Let the inbox be filled."""
        # a thread that listened before was away for a moment
        listened = threading.get_ident(), inbox.channel
        inbox.needs_catch_up = inbox.needs_catch_up or listened in self._have_listened
        self._have_listened.add(listened)
        self._sharing.subscribe(inbox)

    # --- in place of functions of Odoo ----------------------------------------------

    def _row_of(self, frame: FrameType | None) -> Target | None:
        """Return the row of the function that connects, from the innermost frame on."""
        while frame:
            row = self._targets_by_code.get(frame.f_code)
            if row and "db_connect" in names_in_line(frame.f_code, frame.f_lineno):
                return row
            frame = frame.f_back
        return None

    def connect(self, db_connect, to: str, *args, **kwargs):
        """Return what each kind of function in the table needs.

        :param db_connect: Odoo's own, or what another addon has put there before
        :param to: a database; the name is that of Odoo's parameter
        """
        caller = sys._getframe(2)  # what is in the place of ``db_connect`` calls this
        row = self._row_of(caller)
        # a registry means a database of that name, any other caller the system database
        if to == DEFAULT_DATABASE and not isinstance(row, LoadTarget):
            to = self.settings.database
        if isinstance(row, ListenTarget):
            inbox = BusInbox(row) if row.subscriptions else CronInbox(row.channel)
            return ListenConnection(inbox, self.subscribe)
        if isinstance(row, SendTarget):
            return OutboxConnection(self.outbox)
        if row is None and listens(caller.f_code):
            connection = self._direct_for(caller, to)
            if connection is not None:
                return connection
        connection = db_connect(to, *args, **kwargs)
        if isinstance(row, LoadTarget) and not kwargs.get("readonly"):
            return RegistryConnection(connection, self.module_loading)
        return connection

    def _direct_for(self, caller: FrameType, database: str):
        """Return a direct connection for a function of another addon that listens, if there is one.

        Odoo's own are in the table, and have an inbox.
        """
        module, name = str(caller.f_globals.get("__name__")), caller.f_code.co_name
        if module in LISTENING_MODULES:
            return None
        try:
            direct = prove(self.settings.direct, self.settings.pooled, database)
            return DirectPool(direct.parameters).connection(database)
        except Exception as error:
            if (module, name) not in self._listen_pooled:
                self._listen_pooled.add((module, name))
                _logger.warning(NO_DIRECT_LISTEN, module, name, one_line(error))
            return None

    def execute(self, execute, cursor, query, *args, **kwargs):
        """Run a statement, so that module loading leaves nothing behind on pooled connections."""
        self.bypass.look_at(cursor, query)
        if isinstance(query, str) and self.module_loading.connection(cursor.dbname) is None:
            query = for_transaction(cursor.dbname, query)
        return execute(cursor, query, *args, **kwargs)

    def reexec(self, reexec, *args, **kwargs):
        """Replace the process, which ``_reexec`` does at once, after what is left is sent."""
        self.outbox.close(STOP_TIMEOUT)
        return reexec(*args, **kwargs)
