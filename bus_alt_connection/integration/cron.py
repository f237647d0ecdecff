# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo's cron: what its threads and workers wait on, and what keeps a thread running."""

from __future__ import annotations

import logging
import time

from ..config.timing import AFTER_UNEXPECTED_ERROR
from ..listener.inbox import Inbox
from .odoo_functions import SERVER
from .resolve import import_attribute

_logger = logging.getLogger("odoo.addons.bus_alt_connection.hooks")


class CronInbox(Inbox):
    """What a cron thread or worker waits on."""

    def list_databases(self) -> list[str]:
        # where Odoo has no such function, a cron worker looks at all databases whatever arrives
        return list(getattr(import_attribute(SERVER), "cron_database_list", list)())


def run_forever(cron_thread, *args, **kwargs) -> None:
    """Begin ``cron_thread`` again whenever it ends.

    Its listener never breaks, but listing the databases fails while PostgreSQL is down, and
    no jobs would run until a restart (``ThreadedServer.cron_thread``, 15.0 to 19.0).
    """
    while True:
        try:
            return cron_thread(*args, **kwargs)
        except Exception as error:
            _logger.warning("cron_trigger: the cron thread begins again after: %s", error)
        time.sleep(AFTER_UNEXPECTED_ERROR)
