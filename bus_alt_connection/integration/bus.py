# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo's bus: what its dispatcher waits on, and when it is started."""

from __future__ import annotations

import functools

import odoo

from ..listener.inbox import Inbox
from .bus_protocol import covering_channels, in_batches, is_valid_payload
from .resolve import import_attribute
from .targets import SERVER, ListenTarget


def make_inbox(row: ListenTarget) -> Inbox:
    """Return the inbox of Odoo's bus."""

    def catch_up_payloads():
        return in_batches(covering_channels(import_attribute(row.module, row.subscriptions)))

    is_valid = functools.partial(is_valid_payload, nested_channels=row.nested_channels)
    return Inbox(
        row.channel,
        catch_up_while_deaf=True,
        fixed_fileno=True,
        is_valid=is_valid,
        catch_up_payloads=catch_up_payloads,
    )


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
