# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The table: every function of Odoo that is replaced, or recognized as a caller.

To add a series of Odoo, look at its source for ``LISTEN``, ``NOTIFY``, ``exec_pg_environ`` and
session locks, and add rows here; ``tests/odoo/test_contract.py`` checks them.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_END = 99
UNRELEASED = 20  # its rows come from reading its source, and were not run


@dataclass(frozen=True)
class Target:
    """A function of Odoo. Rows of one name are for different series, newest first: the first one
    that is found in this Odoo is used."""

    name: str
    since: int  # the first series that the row is for
    module: str
    function: str
    until: int = NO_END  # the last series in which it matters
    addon: str = ""  # another addon that contains it; the row counts where that is loaded


@dataclass(frozen=True)
class ListenTarget(Target):
    """A function that calls ``db_connect`` itself, and waits on the connection."""

    channel: str = ""
    # what the module calls its map of channels to those who are subscribed to them
    subscriptions: str = ""
    nested_channels: bool = False  # its loop survives channels within channels


@dataclass(frozen=True)
class SendTarget(Target):
    """A function that calls ``db_connect`` itself, to send NOTIFY."""

    inner_function: str = ""  # the nested function that makes the call


@dataclass(frozen=True)
class LoadTarget(Target):
    """A function that calls ``db_connect`` for a registry, before its modules are loaded."""


@dataclass(frozen=True)
class ReplaceTarget(Target):
    """A function that is replaced."""


BUS = "odoo.addons.bus.models.bus"
CRON = "odoo.addons.base.models.ir_cron"
DISPATCHER = "odoo.addons.bus.bus_dispatcher"
JOBRUNNER = "odoo.addons.queue_job.jobrunner.runner"
SERVER = "odoo.service.server"
WEBSOCKET = "odoo.addons.bus.websocket"

# the names of rows, which the log shows
BUS_LOOP = "bus"
CRON_THREAD, CRON_WORKER = "cron thread", "cron worker"
BUS_NOTIFY, CRON_NOTIFY = "bus NOTIFY", "cron NOTIFY"
REGISTRIES, REGISTRY_LOCKS = "registries", "registry locks"
MODULE_UPDATES = "module updates"
CONNECTIONS, STATEMENTS = "connections", "statements"
REQUESTS, WEBSOCKETS = "requests", "websockets"
CRON_THREAD_RESTART, RESTART = "cron threads", "restart in place"
DATABASES, CRON_DATABASES = "databases", "databases of cron"
TOOLS, MANAGER_TOOLS = "pg_dump and psql", "pg_dump and psql of the database manager"
OTHER_TOOLS, BACKUP, RESTORE = "pg_dump and psql of other addons", "backup", "restore"
QUEUE_JOB = "sessions of queue_job"

TARGETS = (
    # functions that listen; 14.0 starts cron jobs by the clock alone
    ListenTarget(
        BUS_LOOP,
        UNRELEASED,
        DISPATCHER,
        "BusDispatcher._listener_loop",
        channel="imbus",
        subscriptions="dispatch._topic_by_channel",
        nested_channels=True,
    ),
    ListenTarget(
        BUS_LOOP,
        16,
        BUS,
        "ImDispatch.loop",
        channel="imbus",
        subscriptions="dispatch._channels_to_ws",
    ),
    ListenTarget(
        BUS_LOOP, 14, BUS, "ImDispatch.loop", channel="imbus", subscriptions="dispatch.channels"
    ),
    ListenTarget(CRON_THREAD, 15, SERVER, "ThreadedServer.cron_thread", channel="cron_trigger"),
    ListenTarget(CRON_WORKER, 15, SERVER, "WorkerCron.start", channel="cron_trigger"),
    # functions that send NOTIFY
    SendTarget(BUS_NOTIFY, UNRELEASED, BUS, "BusBus._ensure_notify_hook", inner_function="notify"),
    SendTarget(BUS_NOTIFY, 19, BUS, "BusBus._ensure_hooks", inner_function="notify"),
    SendTarget(BUS_NOTIFY, 17, BUS, "ImBus._ensure_hooks", inner_function="notify"),
    SendTarget(BUS_NOTIFY, 15, BUS, "ImBus._sendmany", inner_function="notify"),
    SendTarget(BUS_NOTIFY, 14, BUS, "ImBus.sendmany", inner_function="notify"),
    SendTarget(CRON_NOTIFY, 17, CRON, "IrCron._notifydb"),
    SendTarget(CRON_NOTIFY, 15, CRON, "ir_cron._notifydb"),
    # functions that connect for a registry, whose modules are then loaded
    LoadTarget(REGISTRIES, 19, "odoo.orm.registry", "Registry.init"),
    LoadTarget(REGISTRIES, 14, "odoo.modules.registry", "Registry.init"),
    # functions that are replaced
    ReplaceTarget(REGISTRY_LOCKS, UNRELEASED, "odoo.orm.registry", "Registry.new"),
    ReplaceTarget(MODULE_UPDATES, 19, "odoo.modules.loading", "load_modules"),
    ReplaceTarget(MODULE_UPDATES, 14, "odoo.modules", "load_modules"),
    ReplaceTarget(CONNECTIONS, 14, "odoo.sql_db", "db_connect"),
    ReplaceTarget(STATEMENTS, 14, "odoo.sql_db", "Cursor.execute"),
    ReplaceTarget(REQUESTS, UNRELEASED, "odoo.http.router", "Application.__call__"),
    ReplaceTarget(REQUESTS, 16, "odoo.http", "Application.__call__"),
    ReplaceTarget(REQUESTS, 14, "odoo.http", "Root.__call__"),
    ReplaceTarget(
        WEBSOCKETS, 16, WEBSOCKET, "Websocket.trigger_notification_dispatching", until=16
    ),
    ReplaceTarget(CRON_THREAD_RESTART, 15, SERVER, "ThreadedServer.cron_thread"),
    ReplaceTarget(RESTART, 14, SERVER, "_reexec"),
    ReplaceTarget(DATABASES, UNRELEASED, "odoo.modules.db", "list_dbs"),
    ReplaceTarget(DATABASES, 14, "odoo.service.db", "list_dbs"),
    # odoo.service.server has its own reference to list_dbs from 19.0 on
    ReplaceTarget(CRON_DATABASES, 19, SERVER, "cron_database_list"),
    ReplaceTarget(TOOLS, 14, "odoo.tools.misc", "exec_pg_environ"),
    ReplaceTarget(MANAGER_TOOLS, UNRELEASED, "odoo.modules.db", "exec_pg_environ"),
    ReplaceTarget(MANAGER_TOOLS, 16, "odoo.service.db", "exec_pg_environ"),
    # another name of the same function, which other addons use
    ReplaceTarget(OTHER_TOOLS, 14, "odoo.tools", "exec_pg_environ", until=17),
    ReplaceTarget(BACKUP, UNRELEASED, "odoo.modules.db", "dump"),
    ReplaceTarget(BACKUP, 14, "odoo.service.db", "dump_db"),
    ReplaceTarget(RESTORE, UNRELEASED, "odoo.modules.db", "restore"),
    ReplaceTarget(RESTORE, 14, "odoo.service.db", "restore_db"),
    ReplaceTarget(QUEUE_JOB, 14, JOBRUNNER, "_connection_info_for", addon="queue_job"),
)
