"""All differences between the series of Odoo that the suite depends on."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib

ADDONS = os.environ["BUS_ALT_ADDONS"]
ODOO_PATH = pathlib.Path(os.environ["BUS_ALT_ODOO_PATH"])


def _version_info() -> tuple:
    scope: dict = {}
    exec((ODOO_PATH / "odoo" / "release.py").read_text(), scope)
    return scope["version_info"]


VERSION_INFO = _version_info()
SERIES = "{}.{}".format(*VERSION_INFO)
NUMBER = int(str(VERSION_INFO[0]).replace("saas~", ""))

SERVER_WIDE = "base,rpc,web" if NUMBER >= 19 else "base,web"

# the option for the port of the gevent process
GEVENT_PORT = "gevent_port" if NUMBER >= 16 else "longpolling_port"

# db_maxconn_gevent: the gevent process has another pool size
GEVENT_POOL = NUMBER >= 17

# at level DEBUG Odoo writes its own db_password into its log ("create cursor to …")
LOGS_ITS_PASSWORD = NUMBER < 17

# the database manager's command line, odoo-bin db
HAS_DB_COMMAND = (ODOO_PATH / "odoo" / "cli" / "db.py").exists()

# browsers have no websocket; they poll by HTTP requests that wait
LONGPOLLING = NUMBER < 16

# cron workers wait on LISTEN cron_trigger
CRON_LISTENS = NUMBER >= 15

MESSAGE_TYPE = "bus_alt_connection.test"


def environments():
    """The context in which code outside a server may use Odoo's environments."""
    from odoo import api

    return api.Environment.manage() if NUMBER < 15 else contextlib.nullcontext()


def websocket_version() -> str:
    """The version that the websocket route expects (bus/websocket.py, 17.0 on)."""
    for folder in (ODOO_PATH / "odoo" / "addons", ODOO_PATH / "addons"):
        source = folder / "bus" / "websocket.py"
        if source.exists():
            for line in source.read_text().splitlines():
                if line.strip().startswith("_VERSION = "):
                    return line.split("=")[1].strip().strip("\"'")
    return ""


def bus_channel(database: str, channel: str) -> str:
    """A channel as it stands in ``bus_bus.channel`` and in the payload of NOTIFY."""
    return json.dumps([database, channel] if NUMBER >= 16 else channel, separators=(",", ":"))


def message(text: str) -> str:
    """The column ``message`` of ``bus_bus`` for a notification like those of ``send``."""
    return json.dumps({"type": MESSAGE_TYPE, "payload": {"text": text}})


def insert(cursor, channel: str, text: str):
    """Insert the row of one bus notification, without a NOTIFY.

    :param channel: as ``bus_channel`` returns it
    """
    cursor.execute(
        "INSERT INTO bus_bus (channel, message, create_date)"
        " VALUES (%s, %s, now() AT TIME ZONE 'UTC')",
        [channel, message(text)],
    )


def send(env, channel: str, text: str):
    """Send one bus notification from inside Odoo; it leaves with the commit."""
    if NUMBER >= 15:
        env["bus.bus"]._sendone(channel, MESSAGE_TYPE, {"text": text})
    else:
        env["bus.bus"].sendone(channel, {"type": MESSAGE_TYPE, "payload": {"text": text}})


def text_of(notification: dict):
    """The text that ``send`` put into a notification, or None for any other one."""
    sent = notification["message"]
    if sent["type"] == MESSAGE_TYPE:
        return sent["payload"]["text"]
    return None


def make_job(env, name: str):
    """Make a cron job that starts only when it is triggered."""
    values = {
        "name": name,
        "model_id": env.ref("base.model_res_partner").id,
        "state": "code",
        "code": "True",
        "interval_number": 100,
        "interval_type": "days",
        "nextcall": "2100-01-01 00:00:00",
        "user_id": env.ref("base.user_root").id,
    }
    return env["ir.cron"].create(values)


def trigger(env, name: str):
    """Let the cron job start now; the wake-up leaves with the commit (15.0 on)."""
    job = env["ir.cron"].search([("name", "=", name)]) or make_job(env, name)
    job._trigger()


def job_starts(log: str, name: str) -> int:
    """Count in the server's log how often the job started."""
    return sum(
        (f"Job '{name}'" in line and "starting" in line) or f"Starting job `{name}`" in line
        for line in log.splitlines()
    )
