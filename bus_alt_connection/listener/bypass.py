# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What bypasses this addon: a LISTEN or NOTIFY on an ordinary connection of Odoo is logged."""

from __future__ import annotations

import logging
import re
from typing import Callable

from .inbox import LISTEN

_logger = logging.getLogger("odoo.addons.bus_alt_connection.hooks")

CHANNELS = ("imbus", "cron_trigger")

# Odoo 14.0 to 19.0: "notify imbus", "SELECT pg_notify('imbus', …)", or another function's name
NOTIFY = re.compile(r"\s*(?:notify|select)\b.*\b(imbus|cron_trigger)\b", re.I | re.S)

UNPATCHED_NOTIFY = (
    "NOTIFY %s went through an ordinary connection of Odoo, not through bus_alt_connection: each"
    " commit waits for it. Another addon has replaced odoo.sql_db.db_connect, or the function that"
    " sends."
)

UNPATCHED_LISTEN = (
    "LISTEN %s went to an ordinary connection of Odoo, not through bus_alt_connection: behind a"
    " pooler no notification will arrive. Another addon has replaced odoo.sql_db.db_connect, or the"
    " function that listens: remove it, or from 19.0 on name it before bus_alt_connection in"
    " server_wide_modules."
)

OTHER_LISTEN = (
    "LISTEN %s of another addon went to a pooled connection: behind a pooler in transaction mode"
    " nothing will arrive there. Let that addon call odoo.sql_db.db_connect in the function that"
    " runs LISTEN, or connect to PostgreSQL itself."
)


class Bypass:
    """What was seen to bypass the addon, each once.

    :param database: the system database
    :param is_direct: tells whether a cursor of Odoo's is one of PostgreSQL's own, not of a pooler
    """

    def __init__(self, database: str, is_direct: Callable[[object], bool]):
        self._database, self._is_direct = database, is_direct
        self.listens: set[str] = set()  # Odoo's channels whose LISTEN was pooled
        self._notifies: set[str] = set()
        self._other_listens: set[str] = set()  # of other addons

    def look_at(self, cursor, query) -> None:
        """Look at a statement of an ordinary cursor of Odoo's; log once that it bypasses the addon.

        :param query: text, or one of Odoo's ``SQL`` (17.0 on)
        """
        text = query if isinstance(query, str) else str(getattr(query, "code", ""))
        in_system_database = cursor.dbname == self._database
        listen, notify = LISTEN.match(text), in_system_database and NOTIFY.match(text)
        if not listen and not notify:
            return
        channel = (listen or notify)[1].lower()
        own = channel in CHANNELS and in_system_database
        seen = (self.listens if listen else self._notifies) if own else self._other_listens
        if channel in seen or self._is_direct(cursor):
            return
        seen.add(channel)
        if not own:
            _logger.warning(OTHER_LISTEN, channel)
        else:
            _logger.error(UNPATCHED_LISTEN if listen else UNPATCHED_NOTIFY, channel)
