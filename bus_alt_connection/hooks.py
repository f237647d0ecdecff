# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How the functions in the table of seams are replaced.

A listening function of Odoo calls ``odoo.sql_db.db_connect`` in its own body, then waits on that
connection; one that sends NOTIFY calls it too, and a registry before its modules are loaded. So
``db_connect`` is replaced by one that looks at the function that calls it: a listening function
gets an inbox, a sending one the outbox, a registry a connection that may be direct, anybody else
what Odoo gives. A cron job that runs deeper in a listener's thread is somebody else.
"""

import functools
import inspect
import logging
import re
import sys
import threading
import time
from typing import Callable, List, Mapping, Optional

import odoo

from . import catchup, jobrunner, loading, manager, metrics, pages, payload, ready, websockets
from .inbox import Cursor, Inbox
from .listener import Listener
from .lookup import addons_not_found, code, find, look_up, what_is_missing
from .outbox import STOP, Outbox
from .parameters import Settings
from .seams import LISTENS, LOADS, SENDS, SERVER, Seam

_logger = logging.getLogger(__name__)

LISTEN = re.compile(r"\s*listen\s+(imbus|cron_trigger)\b", re.I)
ASTRAY = (
    "LISTEN %s went to an ordinary connection of Odoo, not through bus_alt_connection: behind a"
    " pooler no notification will arrive. Another addon has replaced odoo.sql_db.db_connect, or the"
    " function that listens: load bus_alt_connection last in server_wide_modules."
)


class Process:
    """What the addon has in this process of Odoo."""

    def __init__(self, settings: Settings, found: Mapping[str, Seam]):
        self.settings = settings
        self.astray: set = set()  # channels whose LISTEN went to an ordinary connection
        self.listener: Optional[Listener] = None
        self.outbox = Outbox(settings.pooled)
        self.loader = loading.Loader(settings.owner)
        connecting = (row for row in found.values() if row.kind in (LISTENS, SENDS, LOADS))
        self._rows = {code(row): row for row in connecting}
        self._lock = threading.Lock()
        self._have_listened: set = set()

    def listen(self, inbox: Inbox) -> None:
        """Let the listener of this process fill the inbox."""
        # a thread that listened before was away for a moment
        again = threading.get_ident(), inbox.channel
        inbox.missed = inbox.missed or again in self._have_listened
        self._have_listened.add(again)
        with self._lock:
            if self.listener is None or not self.listener.add(inbox):
                listener = Listener(self.settings, inbox)
                listener.start()  # may find no thread to be had
                self.listener = listener

    # --- in place of functions of Odoo ----------------------------------------------

    def db_connect(self, stock, to, *args, **kwargs):
        """Give each kind of function in the table what it needs."""
        to = self.settings.database if to == "postgres" else to
        row = self._rows.get(sys._getframe(2).f_code)  # between them is ``replace``
        if row and row.kind == LISTENS:
            return Cursor(_inbox(row), self.listen)
        if row and row.kind == SENDS:
            return self.outbox
        connection = stock(to, *args, **kwargs)
        if row and not kwargs.get("readonly"):
            return loading.RegistryConnection(connection, self.loader)
        return connection

    def execute(self, stock, cursor, query, *args, **kwargs):
        """Leave nothing of module loading behind on pooled connections.

        And say so where somebody listens on one.
        """
        if isinstance(query, str) and cursor.dbname != self.settings.database:
            query = self.loader.for_transaction(cursor.dbname, query)
        elif isinstance(query, str):
            listen = LISTEN.match(query)
            if listen and listen[1] not in self.astray:
                self.astray.add(listen[1])
                _logger.error(ASTRAY, listen[1])
        return stock(cursor, query, *args, **kwargs)

    def reexec(self, stock, *args, **kwargs):
        """Replace the process, which ``_reexec`` does at once, after what is left is sent."""
        self.outbox.close(STOP)
        return stock(*args, **kwargs)


def install(settings: Settings) -> None:
    """Send what needs a session of its own straight to PostgreSQL."""
    found = find()
    process = Process(settings, found)
    for line in what_is_missing():
        _logger.error("%s", line)
    for line in addons_not_found():
        _logger.warning("%s", line)
    # the gevent process, which has no runner of queue_job, would say it a second time
    for line in [] if odoo.evented else jobrunner.where(settings):
        _logger.info("%s", line)
    tools = functools.partial(manager.with_variables, settings)
    databases = functools.partial(manager.without, settings.database)
    own_pages = {ready.PATH: functools.partial(ready.report, process)}
    if settings.shows_metrics:
        own_pages[metrics.PATH] = functools.partial(metrics.report, process)
    replacements = {
        "connections": process.db_connect,
        "statements": process.execute,
        "module updates": process.loader.load_modules,
        "registry locks": process.loader.new_registry,
        "requests": pages.Pages(own_pages, start_bus).answer,
        "websockets": websockets.wake,
        "cron threads": _kept_alive,
        "restart in place": process.reexec,
        "databases": databases,
        "databases of cron": databases,
        "pg_dump and psql": tools,
        "pg_dump and psql of the database manager": tools,
        jobrunner.SEAM: functools.partial(jobrunner.parameters, settings),
    }
    for name in replacements.keys() & found.keys():
        row = found[name]
        *parents, function = row.function.split(".")
        owner = look_up(row.module, *parents)
        replace(owner, function, replacements[name])


def replace(owner, name: str, replacement: Callable) -> None:
    """Let a function be replaced by one that is given the stock one, then its arguments."""
    stock = getattr(owner, name)

    @functools.wraps(stock)
    def replaced(*args, **kwargs):
        return replacement(stock, *args, **kwargs)

    # a method of a class has its class already
    setattr(owner, name, staticmethod(replaced) if inspect.ismethod(stock) else replaced)


def start_bus() -> List[str]:
    """Let Odoo's dispatcher listen before somebody subscribes, and return its channel.

    Only where it is going to: a prefork server has its websockets in the gevent process.
    """
    config, row = odoo.tools.config, find().get("bus")
    if not row or config["test_enable"] or (config["workers"] and not odoo.evented):
        return []
    bus = look_up(row.module, row.subscriptions.split(".")[0])
    if hasattr(bus, "_ensure_started"):  # after 19.0
        bus._ensure_started()
    elif not (bus.is_alive() if hasattr(bus, "is_alive") else bus.started):
        bus.start()
    return [row.channel]


def _inbox(row: Seam) -> Inbox:
    if not row.subscriptions:
        # where Odoo has no such function, a cron worker looks at all whatever it is told
        databases = getattr(look_up(SERVER), "cron_database_list", list)
        return Inbox(row.channel, names=lambda: list(databases()))

    def everything():
        subscriptions = look_up(row.module, *row.subscriptions.split("."))
        return catchup.in_batches(catchup.everybody(subscriptions))

    accepts = functools.partial(payload.is_readable, nested=row.nested)
    return Inbox(row.channel, True, accepts, everything)


def _kept_alive(stock, *args, **kwargs) -> None:
    """Begin ``cron_thread`` again whenever it ends.

    Its listener never breaks, but listing the databases fails while PostgreSQL is down, and
    no jobs would run until a restart (``ThreadedServer.cron_thread``, 15.0 to 19.0).
    """
    while True:
        try:
            return stock(*args, **kwargs)
        except Exception as error:
            _logger.warning("cron_trigger: the cron thread begins again after: %s", error)
        time.sleep(1)
