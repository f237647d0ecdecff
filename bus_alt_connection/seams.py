# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The table of seams: the functions of Odoo that need a session of their own.

To add a series of Odoo, look at its source for ``LISTEN`` and ``exec_pg_environ``, and add
rows here; ``tests/test_contract.py`` checks them.
"""

from typing import NamedTuple, Tuple


class Listener(NamedTuple):
    """A function of Odoo that connects, runs LISTEN on a channel and waits.

    Rows of the same name are places of one listener in different versions of Odoo.
    """

    name: str
    channel: str
    first: int  # the first series in which Odoo listens here
    module: str
    function: str
    # what the module calls its map of channels to those who are subscribed to them
    subscriptions: str = ""


BUS = "odoo.addons.bus.models.bus"
DISPATCHER = "odoo.addons.bus.dispatcher"
SERVER = "odoo.service.server"

LISTENERS = (
    Listener("bus", "imbus", 16, BUS, "ImDispatch.loop", "dispatch._channels_to_ws"),
    Listener("bus", "imbus", 14, BUS, "ImDispatch.loop", "dispatch.channels"),
    # after 19.0; the development versions had it in three places
    Listener(
        *("bus", "imbus", 19, "odoo.addons.bus.bus_dispatcher"),
        *("BusDispatcher._listener_loop", "dispatch._topic_by_channel"),
    ),
    Listener("bus", "imbus", 19, DISPATCHER, "ImDispatch.loop", "dispatch._channels_to_ws"),
    Listener(
        *("bus", "imbus", 19, BUS),
        *("MessageBroker._database_listener_loop", "broker._topic_by_key"),
    ),
    # 15.0 on; 14.0 starts jobs by the clock alone
    Listener("threaded cron", "cron_trigger", 15, SERVER, "ThreadedServer.cron_thread"),
    Listener("cron worker", "cron_trigger", 15, SERVER, "WorkerCron.start"),
)


class Channel(NamedTuple):
    """How a listener on one of Odoo's channels is kept hearing."""

    bus: bool  # its payloads are channels of the bus
    probe: str  # the channel of its probes
    silence: Tuple[float, float]  # after so many seconds of it, a probe is sent


CHANNELS = {
    # Odoo's bus ignores a probe, so the probe of one process is heard by every other
    "imbus": Channel(True, "imbus", (11.0, 15.0)),
    # a cron worker that wakes polls its databases, so probes have a channel of their own
    "cron_trigger": Channel(False, "bus_alt_connection", (60.0, 75.0)),
}


class Function(NamedTuple):
    """A function that is replaced, under a name that a module of Odoo holds."""

    first: int  # the first series in which the module holds it
    module: str
    function: str


# the environment of pg_dump, pg_restore and psql
PG_TOOLS = (
    Function(14, "odoo.tools.misc", "exec_pg_environ"),
    Function(16, "odoo.service.db", "exec_pg_environ"),
)

CRON_THREAD = Function(15, SERVER, "ThreadedServer.cron_thread")

# the entry of every request; the first row that the series has
WSGI = (
    Function(16, "odoo.http", "Application.__call__"),
    Function(14, "odoo.http", "Root.__call__"),
)

LIST_DATABASES = Function(14, "odoo.service.db", "list_dbs")
