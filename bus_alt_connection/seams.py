# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Which functions of Odoo listen, and how they get a connection of their own.

A listener of Odoo calls ``odoo.sql_db.db_connect`` in its own body, then waits on that
connection. So the one thing replaced is ``db_connect``: it looks at the function that
calls it, and whoever is not in the table gets what Odoo gives.
"""

import functools
import importlib
import inspect
import logging
import sys
from typing import Mapping, NamedTuple

import odoo
from odoo.release import version

from . import listener, settings

_logger = logging.getLogger(__name__)


class Listener(NamedTuple):
    """A function of Odoo that waits for notifications on a channel."""

    channel: str
    module: str
    function: str


LISTENERS = (
    # channel, module, function
    Listener("imbus", "odoo.addons.bus.models.bus", "ImDispatch.loop"),
)


def redirect(found: Mapping[str, settings.Value]) -> None:
    """Give each listener of the table a session straight to PostgreSQL.

    :param found: what ``settings.read`` returned
    """
    channels = {}
    for row in LISTENERS:
        try:
            channels[id(_code(row))] = row.channel
        except (ImportError, AttributeError) as error:
            _logger.error(
                "bus_alt_connection found no %s.%s in Odoo %s (%s): notifications on channel"
                " %s stay on the pooled path",
                row.module,
                row.function,
                version,
                error,
                row.channel,
            )
    stock = odoo.sql_db.db_connect

    @functools.wraps(stock)
    def db_connect(to, *args, **kwargs):
        channel = channels.get(id(sys._getframe(1).f_code))
        if channel is None:
            return stock(to, *args, **kwargs)
        return listener.direct_connection(channel, to, found)

    odoo.sql_db.db_connect = db_connect


def _code(row: Listener):
    target = importlib.import_module(row.module)
    for name in row.function.split("."):
        target = getattr(target, name)
    return inspect.unwrap(target).__code__
