# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How the functions of the table get a session of their own. All that is patched is here.

A listener of Odoo calls ``odoo.sql_db.db_connect`` in its own body, then waits on that
connection. So ``db_connect`` is replaced by one that looks at the function that calls it:
a listener gets a session straight to PostgreSQL, anybody else what Odoo gives. A cron job
that runs deeper in a listener's thread is somebody else.
"""

import functools
import importlib
import inspect
import logging
import re
import sys
import time
from typing import List, Mapping

import odoo
from odoo.release import version, version_info

from . import keep, listener, pgtools, ready, seams, settings, watch

_logger = logging.getLogger(__name__)

# the number of the series: version_info begins with 19, or with "saas~19"
SERIES = int(re.search(r"\d+", str(version_info[0])).group())


def install(found: Mapping[str, settings.Value]) -> None:
    """Send what needs a session of its own straight to PostgreSQL.

    :param found: what ``settings.read`` returned
    """
    listeners = find_listeners()
    _redirect_connections(listeners, found)
    wsgi = next(row for row in seams.WSGI if row.first <= SERIES)
    _replace(wsgi, lambda stock: ready.answering(stock, lambda: _start_bus(listeners)))
    _replace(seams.CRON_THREAD, _kept_alive)
    for row in seams.PG_TOOLS:
        _replace(row, lambda stock: pgtools.redirected(stock, found))
    if "name" in found:
        _replace(seams.LIST_DATABASES, lambda stock: _without(stock, found["name"].text))


def _redirect_connections(listeners: list, found: Mapping[str, settings.Value]) -> None:
    config = odoo.tools.config
    system = found["name"].text if "name" in found else config.get("db_system") or "postgres"
    stock = odoo.sql_db.db_connect
    kept = keep.KeepingPool() if settings.keeps_notify(found) else None
    if config["test_enable"] or config.get("db_template") == system:
        kept = None  # nobody may be connected to a template that is copied

    @functools.wraps(stock)
    def db_connect(to, *args, **kwargs):
        if to == "postgres":
            to = system
        caller = sys._getframe(1).f_code
        for row, code in listeners:
            if caller is code:
                return listener.Listener(functools.partial(watch.start, row, to, found))
        connection = stock(to, *args, **kwargs)
        if kept and to == system and not args and not kwargs:
            return kept.connection(to)
        return connection

    odoo.sql_db.db_connect = db_connect


def find_listeners() -> list:
    """Return (row, code) of each listener; log an error for one that is nowhere."""
    rows = [row for row in seams.LISTENERS if row.first <= SERIES]
    listeners = []
    for name in dict.fromkeys(row.name for row in rows):
        places = [row for row in rows if row.name == name]
        codes = [(row, _listening_code(row)) for row in places]
        at_hand = [(row, code) for row, code in codes if code]
        if not at_hand:
            _logger.error(
                "bus_alt_connection does not know where Odoo %s listens on channel %s (%s):"
                " looked for %s. This LISTEN stays on the pooled path and goes deaf there.",
                version,
                places[0].channel,
                name,
                " and ".join(f"{row.module}.{row.function}" for row in places),
            )
        listeners += at_hand[:1]
    return listeners


def _listening_code(row: seams.Listener):
    try:
        target = importlib.import_module(row.module)
        for name in row.function.split("."):
            target = getattr(target, name)
    except (ImportError, AttributeError):
        return None
    code = inspect.unwrap(target).__code__
    # a function that no longer connects itself is not the listener any more
    return code if "db_connect" in code.co_names else None


def _replace(row: seams.Function, replacement) -> None:
    if row.first > SERIES:
        return
    try:
        owner = importlib.import_module(row.module)
        *classes, name = row.function.split(".")
        for name_of_class in classes:
            owner = getattr(owner, name_of_class)
        setattr(owner, name, replacement(getattr(owner, name)))
    except (ImportError, AttributeError):
        _logger.error(
            "bus_alt_connection found no %s.%s in Odoo %s: it stays as Odoo has it",
            row.module,
            row.function,
            version,
        )


def _start_bus(listeners: list) -> List[str]:
    """Let Odoo's dispatcher listen before somebody subscribes, and return its channel.

    Only where it is going to: a prefork server has its websockets in the gevent process.
    """
    config = odoo.tools.config
    if config["test_enable"] or (config["workers"] and not odoo.evented):
        return []
    rows = [row for row, _code in listeners if row.subscriptions]
    for row in rows:
        dispatcher = importlib.import_module(row.module)
        dispatcher = getattr(dispatcher, row.subscriptions.split(".", maxsplit=1)[0])
        if hasattr(dispatcher, "_ensure_started"):  # after 19.0
            dispatcher._ensure_started()
        elif not (dispatcher.is_alive() if hasattr(dispatcher, "is_alive") else dispatcher.started):
            dispatcher.start()
    return [row.channel for row in rows]


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
    @functools.wraps(stock)
    def list_dbs(*args, **kwargs):
        return [name for name in stock(*args, **kwargs) if name != system]

    return list_dbs
