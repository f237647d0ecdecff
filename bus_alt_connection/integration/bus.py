# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo's bus: what its dispatcher waits on, who missed something, and when it is started."""

from __future__ import annotations

import logging
import random
import time
from typing import Mapping, Sequence

import odoo

from ..config.parameters import DEFAULT_DATABASE
from ..config.timing import MISSED_MARGIN, MISSED_STATEMENT_TIMEOUT_MS
from ..listener.inbox import Inbox
from .bus_protocol import (
    MISSED,
    NEWEST,
    as_subscribed,
    covering_channels,
    databases_of,
    in_batches,
    is_valid_payload,
)
from .odoo_functions import SERVER, ListenTarget
from .resolve import import_attribute

_logger = logging.getLogger("odoo.addons.bus_alt_connection.catchup")


class BusInbox(Inbox):
    """What Odoo's bus waits on; who missed something is asked on Odoo's own pooled connections."""

    fixed_fileno = True

    def __init__(self, row: ListenTarget):
        super().__init__(row.channel, catch_up_while_deaf=True)
        self._row = row
        self._searched_at: dict[str, float] = {}  # by database; monotonic seconds
        self._found: dict[str, set[int]] = {}  # by database: the messages of the last search

    def is_valid(self, payload: str) -> bool:
        return is_valid_payload(payload, self._row.nested_channels)

    def catch_up_payloads(self, told: Sequence = ()) -> list[list[str]]:
        channels = [channel for (payload,) in told for channel in as_subscribed(payload)]
        return in_batches(covering_channels(self._subscriptions(), channels))

    def find_missed(self, age: float) -> list[list[str]]:
        """Return payloads, in batches, for those who missed something; the newest first.

        A database that does not answer is left out.
        """
        subscriptions = self._subscriptions()
        channels = (
            as_subscribed(text)
            for database in self._databases()
            for text in self._missed_in(database, age)
        )
        return in_batches(list(dict.fromkeys(c for c in channels if c in subscriptions)))

    def use_pool(self) -> None:
        """Wait for a connection of Odoo's pool and for the pooler, as a websocket does.

        :raises psycopg2.Error: where there is none to be had; also ``PoolError``
        """
        database = random.choice(self._databases() or [DEFAULT_DATABASE])
        with odoo.sql_db.db_connect(database).cursor() as cr:
            cr.execute("SELECT 1", log_exceptions=False)

    def _databases(self) -> list[str]:
        """Return the databases that have subscribers; no other name is ever connected to."""
        served = import_attribute("odoo.modules.registry", "Registry.registries")
        return [name for name in databases_of(self._subscriptions()) if name in served]

    def _subscriptions(self) -> Mapping:
        return import_attribute(self._row.module, self._row.subscriptions)

    def _missed_in(self, database: str, age: float) -> list[str]:
        """Return the channels of messages that the last search has not found, as JSON."""
        now = time.monotonic()
        age = min(age, now - self._searched_at.get(database, 0.0))
        try:
            with odoo.sql_db.db_connect(database).cursor() as cr:
                timeout, age = MISSED_STATEMENT_TIMEOUT_MS, age + MISSED_MARGIN
                cr.execute("SET LOCAL statement_timeout = %s", [timeout], log_exceptions=False)
                cr.execute(MISSED, [NEWEST, age], log_exceptions=False)
                messages = dict(cr.fetchall())
        except Exception as error:  # everybody is told all the same
            _logger.debug("%s: who missed something is not known: %s", database, error)
            return []
        before = self._found.get(database, set())
        self._searched_at[database], self._found[database] = now, set(messages)
        return [channel for number, channel in messages.items() if number not in before]


def start_bus(row: ListenTarget | None) -> list[str]:
    """Let Odoo's dispatcher listen before the first subscription, and return its channel.

    Only where it is going to: a prefork server has its websockets in the gevent process, and a WSGI
    server of others, which calls Odoo without its own, may have none.
    """
    config = odoo.tools.config
    if not import_attribute(SERVER).server:
        return []
    if not row or config["test_enable"] or (config["workers"] and not odoo.evented):
        return []
    bus = import_attribute(row.module, row.subscriptions.split(".")[0])
    if hasattr(bus, "_ensure_started"):  # after 19.0
        bus._ensure_started()
    elif not (bus.is_alive() if hasattr(bus, "is_alive") else bus.started):
        bus.start()
    return [row.channel]
