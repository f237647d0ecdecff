"""All that the suite knows of a single Odoo series."""

from __future__ import annotations

import json
import os
import pathlib

ODOO_PATH = pathlib.Path(os.environ["BUS_ALT_ODOO_PATH"])


def _version_info() -> tuple:
    scope: dict = {}
    exec((ODOO_PATH / "odoo" / "release.py").read_text(), scope)
    return scope["version_info"]


VERSION_INFO = _version_info()
SERIES = "{}.{}".format(*VERSION_INFO)

SERVER_WIDE = "base,rpc,web" if VERSION_INFO >= (19,) else "base,web"


def websocket_version() -> str:
    """The version that the websocket route wants to be asked for (bus/websocket.py, 17.0 on)."""
    for folder in (ODOO_PATH / "odoo" / "addons", ODOO_PATH / "addons"):
        source = folder / "bus" / "websocket.py"
        if source.exists():
            lines = source.read_text().splitlines()
            for line in lines:
                if line.strip().startswith("_VERSION = "):
                    return line.split("=")[1].strip().strip("\"'")
    return ""


MESSAGE_TYPE = "bus_alt_connection.test"


def message(text: str) -> str:
    """The column ``message`` of ``bus_bus`` for a notification like those of ``send``."""
    return json.dumps({"type": MESSAGE_TYPE, "payload": {"text": text}})


def send(env, channel: str, text: str):
    """Send one bus notification from inside Odoo; it leaves with the commit."""
    env["bus.bus"]._sendone(channel, MESSAGE_TYPE, {"text": text})


def text_of(notification: dict):
    """The text that ``send`` put into a notification, or None for any other one."""
    sent = notification["message"]
    if sent["type"] == MESSAGE_TYPE:
        return sent["payload"]["text"]
    return None
