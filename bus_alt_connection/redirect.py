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
from typing import Mapping

import odoo
from odoo.release import version, version_info

from . import listener, pgtools, seams, settings

_logger = logging.getLogger(__name__)

# the number of the series: version_info begins with 19, or with "saas~19"
SERIES = int(re.search(r"\d+", str(version_info[0])).group())


def install(found: Mapping[str, settings.Value]) -> None:
    """Send what needs a session of its own straight to PostgreSQL.

    :param found: what ``settings.read`` returned
    """
    _redirect_connections(found)
    for row in seams.PG_TOOLS:
        _replace(row, lambda stock: pgtools.redirected(stock, found))
    if "name" in found:
        _replace(seams.LIST_DATABASES, lambda stock: _without(stock, found["name"].text))


def _redirect_connections(found: Mapping[str, settings.Value]) -> None:
    listeners = find_listeners()
    system = found["name"].text if "name" in found else "postgres"
    stock = odoo.sql_db.db_connect

    @functools.wraps(stock)
    def db_connect(to, *args, **kwargs):
        if to == "postgres":
            to = system
        caller = sys._getframe(1).f_code
        for row, code in listeners:
            if caller is code:
                return listener.direct_connection(row.channel, to, found)
        return stock(to, *args, **kwargs)

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
        module = importlib.import_module(row.module)
        setattr(module, row.function, replacement(getattr(module, row.function)))
    except (ImportError, AttributeError):
        _logger.error(
            "bus_alt_connection found no %s.%s in Odoo %s: it stays as Odoo has it",
            row.module,
            row.function,
            version,
        )


def _without(stock, system: str):
    @functools.wraps(stock)
    def list_dbs(*args, **kwargs):
        return [name for name in stock(*args, **kwargs) if name != system]

    return list_dbs
