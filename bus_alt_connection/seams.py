# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The table of seams: every function of Odoo that the addon replaces, or knows by its code.

To add a series of Odoo, look at its source for ``LISTEN``, ``NOTIFY`` and ``exec_pg_environ``, and
add rows here; ``tests/odoo/test_contract.py`` checks them.
"""

from typing import NamedTuple


class Seam(NamedTuple):
    """A place in Odoo. Rows of the same name are its places in different series: one counts."""

    name: str
    first: int  # the first series in which it is there
    module: str
    function: str
    # of a function that connects, runs LISTEN on a channel and waits:
    channel: str = ""
    # what the module calls its map of channels to those who are subscribed to them
    subscriptions: str = ""
    # its loop survives channels within channels
    nested: bool = False
    # which function connects and sends NOTIFY: this one, or one inside it
    sends: str = ""


BUS = "odoo.addons.bus.models.bus"
CRON = "odoo.addons.base.models.ir_cron"
DISPATCHER = "odoo.addons.bus.bus_dispatcher"
SERVER = "odoo.service.server"

SEAMS = (
    # functions that listen; 14.0 starts cron jobs by the clock alone
    Seam("bus", 16, BUS, "ImDispatch.loop", "imbus", "dispatch._channels_to_ws"),
    Seam("bus", 14, BUS, "ImDispatch.loop", "imbus", "dispatch.channels"),
    Seam(
        *("bus", 19, DISPATCHER, "BusDispatcher._listener_loop", "imbus"),
        *("dispatch._topic_by_channel", True),  # after 19.0
    ),
    Seam("cron thread", 15, SERVER, "ThreadedServer.cron_thread", "cron_trigger"),
    Seam("cron worker", 15, SERVER, "WorkerCron.start", "cron_trigger"),
    # functions that send NOTIFY
    Seam("bus NOTIFY", 14, BUS, "ImBus.sendmany", sends="notify"),
    Seam("bus NOTIFY", 15, BUS, "ImBus._sendmany", sends="notify"),
    Seam("bus NOTIFY", 17, BUS, "ImBus._ensure_hooks", sends="notify"),
    Seam("bus NOTIFY", 19, BUS, "BusBus._ensure_hooks", sends="notify"),
    Seam("bus NOTIFY", 19, BUS, "BusBus._ensure_notify_hook", sends="notify"),  # after 19.0
    Seam("cron NOTIFY", 15, CRON, "ir_cron._notifydb", sends="_notifydb"),
    Seam("cron NOTIFY", 17, CRON, "IrCron._notifydb", sends="_notifydb"),
    # functions that are replaced
    Seam("connections", 14, "odoo.sql_db", "db_connect"),
    Seam("statements", 14, "odoo.sql_db", "Cursor.execute"),
    Seam("requests", 16, "odoo.http", "Application.__call__"),
    Seam("requests", 14, "odoo.http", "Root.__call__"),
    Seam("cron threads", 15, SERVER, "ThreadedServer.cron_thread"),
    Seam("databases", 14, "odoo.service.db", "list_dbs"),
    Seam("databases", 19, "odoo.modules.db", "list_dbs"),  # after 19.0
    # 19.0 imports list_dbs by name there
    Seam("databases of cron", 19, SERVER, "cron_database_list"),
    Seam("pg_dump and psql", 14, "odoo.tools.misc", "exec_pg_environ"),
    Seam("pg_dump and psql of the database manager", 16, "odoo.service.db", "exec_pg_environ"),
)
