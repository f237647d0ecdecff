# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The table of seams: every function of Odoo that the addon replaces, or knows by its code.

To add a series of Odoo, look at its source for ``LISTEN``, ``NOTIFY``, ``exec_pg_environ`` and
session locks, and add rows here; ``tests/odoo/test_contract.py`` checks them.
"""

from typing import NamedTuple

# what becomes of a function
REPLACED = "replaced"
# or, of one that calls db_connect itself: what it does with the connection, and so what it gets
LISTENS, SENDS, LOADS = "listens", "sends", "loads"


class Seam(NamedTuple):
    """A place in Odoo. Rows of the same name are its places in different series: one counts."""

    name: str
    first: int  # the first series in which it is there
    module: str
    function: str
    kind: str = REPLACED
    # the function inside it that is meant
    inside: str = ""
    # of one that listens: the channel
    channel: str = ""
    # what the module calls its map of channels to those who are subscribed to them
    subscriptions: str = ""
    # its loop survives channels within channels
    nested: bool = False
    # the addon of others that it is in: it counts where that is loaded server-wide
    addon: str = ""
    # the last series in which it has to be replaced
    last: int = 99


BUS = "odoo.addons.bus.models.bus"
CRON = "odoo.addons.base.models.ir_cron"
DISPATCHER = "odoo.addons.bus.bus_dispatcher"
SERVER = "odoo.service.server"
WEBSOCKET = "odoo.addons.bus.websocket"

JOBRUNNER = "odoo.addons.queue_job.jobrunner.runner"

NEXT = 20

SEAMS = (
    # functions that listen; 14.0 starts cron jobs by the clock alone
    Seam("bus", 16, BUS, "ImDispatch.loop", LISTENS, "", "imbus", "dispatch._channels_to_ws"),
    Seam("bus", 14, BUS, "ImDispatch.loop", LISTENS, "", "imbus", "dispatch.channels"),
    Seam(
        *("bus", NEXT, DISPATCHER, "BusDispatcher._listener_loop", LISTENS, "", "imbus"),
        *("dispatch._topic_by_channel", True),
    ),
    Seam("cron thread", 15, SERVER, "ThreadedServer.cron_thread", LISTENS, "", "cron_trigger"),
    Seam("cron worker", 15, SERVER, "WorkerCron.start", LISTENS, "", "cron_trigger"),
    # functions that send NOTIFY
    Seam("bus NOTIFY", 14, BUS, "ImBus.sendmany", SENDS, "notify"),
    Seam("bus NOTIFY", 15, BUS, "ImBus._sendmany", SENDS, "notify"),
    Seam("bus NOTIFY", 17, BUS, "ImBus._ensure_hooks", SENDS, "notify"),
    Seam("bus NOTIFY", 19, BUS, "BusBus._ensure_hooks", SENDS, "notify"),
    Seam("bus NOTIFY", NEXT, BUS, "BusBus._ensure_notify_hook", SENDS, "notify"),
    Seam("cron NOTIFY", 15, CRON, "ir_cron._notifydb", SENDS),
    Seam("cron NOTIFY", 17, CRON, "IrCron._notifydb", SENDS),
    # functions that connect for a registry, whose modules are then loaded
    Seam("registries", 14, "odoo.modules.registry", "Registry.init", LOADS),
    Seam("registries", 19, "odoo.orm.registry", "Registry.init", LOADS),
    # functions that are replaced
    Seam("registry locks", NEXT, "odoo.orm.registry", "Registry.new"),
    Seam("module updates", 19, "odoo.modules.loading", "load_modules"),
    Seam("module updates", 14, "odoo.modules", "load_modules"),
    Seam("connections", 14, "odoo.sql_db", "db_connect"),
    Seam("statements", 14, "odoo.sql_db", "Cursor.execute"),
    Seam("requests", NEXT, "odoo.http.router", "Application.__call__"),
    Seam("requests", 16, "odoo.http", "Application.__call__"),
    Seam("requests", 14, "odoo.http", "Root.__call__"),
    Seam("websockets", 16, WEBSOCKET, "Websocket.trigger_notification_dispatching", last=16),
    Seam("cron threads", 15, SERVER, "ThreadedServer.cron_thread"),
    Seam("restart in place", 14, SERVER, "_reexec"),
    Seam("databases", 14, "odoo.service.db", "list_dbs"),
    Seam("databases", NEXT, "odoo.modules.db", "list_dbs"),
    # 19.0 imports list_dbs by name there
    Seam("databases of cron", 19, SERVER, "cron_database_list"),
    Seam("pg_dump and psql", 14, "odoo.tools.misc", "exec_pg_environ"),
    Seam("pg_dump and psql of the database manager", 16, "odoo.service.db", "exec_pg_environ"),
    Seam("pg_dump and psql of the database manager", NEXT, "odoo.modules.db", "exec_pg_environ"),
    Seam("sessions of queue_job", 14, JOBRUNNER, "_connection_info_for", addon="queue_job"),
)
