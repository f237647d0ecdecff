# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The table of seams: the functions of Odoo that need a session of their own.

To add a series of Odoo, look at its source for ``LISTEN`` and ``exec_pg_environ``, and add
rows here; ``tests/test_contract.py`` checks them.
"""

from typing import NamedTuple


class Listener(NamedTuple):
    """A function of Odoo that connects, runs LISTEN on a channel and waits.

    Rows of the same name are places of one listener in different versions of Odoo.
    """

    name: str
    channel: str
    first: int  # the first series in which Odoo listens here
    module: str
    function: str


LISTENERS = (
    # 14.0 to 19.0
    Listener("bus", "imbus", 14, "odoo.addons.bus.models.bus", "ImDispatch.loop"),
    # after 19.0; the development versions had it in three places
    Listener("bus", "imbus", 19, "odoo.addons.bus.bus_dispatcher", "BusDispatcher._listener_loop"),
    Listener("bus", "imbus", 19, "odoo.addons.bus.dispatcher", "ImDispatch.loop"),
    Listener(
        "bus", "imbus", 19, "odoo.addons.bus.models.bus", "MessageBroker._database_listener_loop"
    ),
    # 15.0 on; 14.0 starts jobs by the clock alone
    Listener(
        "threaded cron", "cron_trigger", 15, "odoo.service.server", "ThreadedServer.cron_thread"
    ),
    Listener("cron worker", "cron_trigger", 15, "odoo.service.server", "WorkerCron.start"),
)


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

LIST_DATABASES = Function(14, "odoo.service.db", "list_dbs")
