# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the addon has in this process of Odoo, and what Odoo's functions get from it.

A listening function of Odoo calls ``odoo.sql_db.db_connect`` in its own body, then waits on that
connection; one that sends NOTIFY calls it too, and a registry before its modules are loaded. So
``db_connect`` is replaced by one that looks at its caller: a listening function gets an inbox, a
sending one the outbox, a registry a connection that may be direct, any other what Odoo gives. A
cron job that runs deeper in a listening thread is another caller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from types import CodeType

import odoo

from ..config.parameters import DEFAULT_DATABASE, Settings
from ..config.timing import STOP_TIMEOUT
from ..listener.follow import Follower
from ..listener.inbox import LISTEN, Inbox, ListenCursor
from ..listener.listener import Listener
from ..listener.sharing import Sharing
from ..outbox.outbox import Outbox
from ..postgres.proof import DirectConnections
from . import bus, cron
from .loading import ModuleLoading, RegistryConnection, for_transaction
from .resolve import Resolution, code_of
from .targets import ListenTarget, LoadTarget, ReplaceTarget, SendTarget

_logger = logging.getLogger("odoo.addons.bus_alt_connection.hooks")

CHANNELS = ("imbus", "cron_trigger")
UNPATCHED_LISTEN = (
    "LISTEN %s went to an ordinary connection of Odoo, not through bus_alt_connection: behind a"
    " pooler no notification will arrive. Another addon has replaced odoo.sql_db.db_connect, or the"
    " function that listens: load bus_alt_connection last in server_wide_modules."
)


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
        self.unpatched_listens: set = set()  # channels whose LISTEN went to an ordinary connection
        # workers are forked later; the gevent process is a program of its own
        server = os.getppid() if odoo.evented else os.getpid()
        self._sharing = Sharing(settings, version, server)
        self.outbox = Outbox(settings.pooled)
        self.direct = DirectConnections(settings.direct, settings.pooled)
        self.module_loading = ModuleLoading(self.direct)
        self._targets_by_code = {
            code_of(row): row for row in self.targets.values() if not isinstance(row, ReplaceTarget)
        }
        self._have_listened: set = set()  # (thread, channel)

    @property
    def listener(self) -> Listener | Follower | None:
        """What is known of this server's listener in this process."""
        return self._sharing.listener

    def subscribe(self, inbox: Inbox) -> None:
        """Let the inbox be filled."""
        # a thread that listened before was away for a moment
        listened = threading.get_ident(), inbox.channel
        inbox.needs_catch_up = inbox.needs_catch_up or listened in self._have_listened
        self._have_listened.add(listened)
        self._sharing.subscribe(inbox)

    # --- in place of functions of Odoo ----------------------------------------------

    def connect(self, caller: CodeType, db_connect, database, *args, **kwargs):
        """Return what each kind of function in the table needs.

        :param caller: the code of the function that calls ``db_connect``
        :param db_connect: Odoo's own
        """
        row = self._targets_by_code.get(caller)
        # a registry means a database of that name, any other caller the system database
        if database == DEFAULT_DATABASE and not isinstance(row, LoadTarget):
            database = self.settings.database
        if isinstance(row, ListenTarget):
            make_inbox = bus.make_inbox if row.subscriptions else cron.make_inbox
            return ListenCursor(make_inbox(row), self.subscribe)
        if isinstance(row, SendTarget):
            return OutboxConnection(self.outbox)
        connection = db_connect(database, *args, **kwargs)
        if isinstance(row, LoadTarget) and not kwargs.get("readonly"):
            return RegistryConnection(connection, self.module_loading)
        return connection

    def execute(self, execute, cursor, query, *args, **kwargs):
        """Run a statement, so that module loading leaves nothing behind on pooled connections."""
        if isinstance(query, str):
            if cursor.dbname == self.settings.database:
                self._report_unpatched_listen(query)
            if self.module_loading.connection(cursor.dbname) is None:
                query = for_transaction(cursor.dbname, query)
        return execute(cursor, query, *args, **kwargs)

    def _report_unpatched_listen(self, query: str) -> None:
        match = LISTEN.match(query)
        channel = match[1].lower() if match else ""
        if channel in CHANNELS and channel not in self.unpatched_listens:
            self.unpatched_listens.add(channel)
            _logger.error(UNPATCHED_LISTEN, channel)

    def reexec(self, reexec, *args, **kwargs):
        """Replace the process, which ``_reexec`` does at once, after what is left is sent."""
        self.outbox.close(STOP_TIMEOUT)
        return reexec(*args, **kwargs)
