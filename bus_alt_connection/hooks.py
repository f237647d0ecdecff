# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How the functions in the table of seams are replaced.

A listening function of Odoo calls ``odoo.sql_db.db_connect`` in its own body, then waits on that
connection; one that sends NOTIFY calls it too. So ``db_connect`` is replaced by one that looks at
the function that calls it: a listening function gets an inbox, a sending one the outbox, anybody
else what Odoo gives. A cron job that runs deeper in a listener's thread is somebody else.
"""

import functools
import importlib
import inspect
import logging
import re
import sys
import threading
import time
from typing import Dict, List, Mapping, Optional

import odoo
from odoo.release import version, version_info

from . import catchup, outbox, payload, ready
from .inbox import Cursor, Inbox
from .listener import Listener
from .parameters import Settings
from .seams import SEAMS, SERVER, Seam

_logger = logging.getLogger(__name__)

# the number of the series: version_info begins with 19, or with "saas~19"
SERIES = int(re.search(r"\d+", str(version_info[0])).group())

NOT_FOUND = "bus_alt_connection found no %s.%s in Odoo %s (%s): %s"
ASTRAY = (
    "LISTEN %s went to an ordinary connection of Odoo, not through bus_alt_connection: behind a"
    " pooler no notification will arrive. Another addon has replaced odoo.sql_db.db_connect, or the"
    " function that listens: load bus_alt_connection last in server_wide_modules."
)


class Process:
    """What the addon has in this process of Odoo."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.astray: set = set()  # channels whose LISTEN went to an ordinary connection
        self.listener: Optional[Listener] = None
        self.outbox = outbox.Outbox(settings.pooled)
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
                self.listener = Listener(self.settings, inbox)
                self.listener.start()


def install(settings: Settings) -> None:
    """Send what needs a session of its own straight to PostgreSQL."""
    process, found = Process(settings), find()
    for line in what_is_missing():
        _logger.error("%s", line)
    tools = functools.partial(_with_variables, variables=settings.tools)
    databases = functools.partial(_without, system=settings.database)
    replacements = {
        "connections": functools.partial(_connecting, process=process, found=found),
        "statements": functools.partial(_noticing_listen, process=process),
        "requests": functools.partial(ready.answering, process=process, start_bus=start_bus),
        "cron threads": _kept_alive,
        "databases": databases,
        "databases of cron": databases,
        "pg_dump and psql": tools,
        "pg_dump and psql of the database manager": tools,
    }
    for name in replacements.keys() & found.keys():
        row = found[name]
        *parents, function = row.function.split(".")
        owner = _look_up(row.module, *parents)
        setattr(owner, function, replacements[name](getattr(owner, function)))


def find() -> Dict[str, Seam]:
    """Return the seams of this Odoo that are where the table says, by name."""
    found: Dict[str, Seam] = {}
    for row in SEAMS:
        if row.first <= SERIES and row.name not in found and _is_there(row):
            found[row.name] = row
    return found


def what_is_missing() -> List[str]:
    """Return a line for each place in the table that is not there, nor any other of its name."""
    found = find()
    return [
        NOT_FOUND % (row.module, row.function, version, row.name, _what_it_means(row))
        for row in SEAMS
        if row.first <= SERIES and row.name not in found
    ]


def _what_it_means(row: Seam) -> str:
    if row.channel:
        return "this LISTEN stays on the pooled connection and goes deaf there"
    return "each commit waits for this NOTIFY" if row.sends else "not replaced"


def _is_there(row: Seam) -> bool:
    try:
        code = _code(row)
    except (ImportError, AttributeError):
        return False
    # a function that no longer connects itself does not listen or send any more
    return not (row.channel or row.sends) or (code is not None and "db_connect" in code.co_names)


def _code(row: Seam):
    """Return the code of the function that a row is about, or None where it has none inside."""
    code = inspect.unwrap(_look_up(row.module, *row.function.split("."))).__code__
    inside = {getattr(one, "co_name", None): one for one in code.co_consts}
    return inside.get(row.sends) if row.sends not in ("", code.co_name) else code


def _look_up(module: str, *names: str):
    return functools.reduce(getattr, names, importlib.import_module(module))


def start_bus() -> List[str]:
    """Let Odoo's dispatcher listen before somebody subscribes, and return its channel.

    Only where it is going to: a prefork server has its websockets in the gevent process.
    """
    config, row = odoo.tools.config, find().get("bus")
    if not row or config["test_enable"] or (config["workers"] and not odoo.evented):
        return []
    bus = _look_up(row.module, row.subscriptions.split(".")[0])
    if hasattr(bus, "_ensure_started"):  # after 19.0
        bus._ensure_started()
    elif not (bus.is_alive() if hasattr(bus, "is_alive") else bus.started):
        bus.start()
    return [row.channel]


# --- the replacements -------------------------------------------------------------------


def _connecting(stock, process: Process, found: Mapping[str, Seam]):
    """Return ``db_connect`` that gives a listening function an inbox, a sending one the outbox."""
    listening = {_code(row): row for row in found.values() if row.channel}
    sending = {_code(row) for row in found.values() if row.sends}
    system = process.settings.database

    @functools.wraps(stock)
    def db_connect(to, *args, **kwargs):
        to = system if to == "postgres" else to
        caller = sys._getframe(1).f_code
        if caller in listening:
            return Cursor(_inbox(listening[caller]), process.listen)
        if caller in sending:
            return outbox.Cursor(process.outbox.put)
        return stock(to, *args, **kwargs)

    return db_connect


def _inbox(row: Seam) -> Inbox:
    if not row.subscriptions:
        # where Odoo has no such function, a cron worker looks at all whatever it is told
        databases = getattr(importlib.import_module(SERVER), "cron_database_list", list)
        return Inbox(row.channel, everything=lambda: [list(databases())])

    def everything():
        subscriptions = _look_up(row.module, *row.subscriptions.split("."))
        return catchup.in_batches(catchup.everybody(subscriptions))

    accepts = functools.partial(payload.is_readable, nested=row.nested)
    return Inbox(row.channel, True, accepts, everything)


def _noticing_listen(stock, process: Process):
    """Return ``Cursor.execute`` that says so where somebody listens on an ordinary connection."""
    system = process.settings.database

    @functools.wraps(stock)
    def execute(self, query, *args, **kwargs):
        if self.dbname == system:
            listen = re.match(r"\s*listen\s+(imbus|cron_trigger)\b", str(query), re.I)
            if listen and listen.group(1) not in process.astray:
                process.astray.add(listen.group(1))
                _logger.error(ASTRAY, listen.group(1))
        return stock(self, query, *args, **kwargs)

    return execute


def _kept_alive(stock):
    """Return ``cron_thread`` begun again whenever it ends.

    Its listener never breaks, but listing the databases fails while PostgreSQL is down, and
    no jobs would run until a restart (``ThreadedServer.cron_thread``, 15.0 to 19.0).
    """

    @functools.wraps(stock)
    def cron_thread(*args, **kwargs):
        while True:
            try:
                return stock(*args, **kwargs)
            except Exception as error:
                _logger.warning("cron_trigger: the cron thread begins again after: %s", error)
            time.sleep(1)

    return cron_thread


def _without(stock, system: str):
    """Return a function that lists databases without the system database, whatever its name."""

    @functools.wraps(stock)
    def databases(*args, **kwargs):
        return [name for name in stock(*args, **kwargs) if name != system]

    return databases


def _with_variables(stock, variables: Mapping[str, Optional[str]]):
    """Return ``exec_pg_environ``, the environment of pg_dump and its like, with libpq's variables.

    Through a pooler in transaction mode ``pg_dump`` leaves its ``search_path`` behind on server
    connections that other users get next.
    """

    @functools.wraps(stock)
    def exec_pg_environ(*args, **kwargs):
        merged = {**stock(*args, **kwargs), **variables}
        return {name: value for name, value in merged.items() if value is not None}

    return exec_pg_environ
