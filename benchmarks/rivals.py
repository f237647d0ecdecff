"""Every way to run Odoo behind PgBouncer, beside Odoo without it."""

from __future__ import annotations

import contextlib
import dataclasses

from tests.stack import series
from tests.stack.deployment import Deployment
from tests.stack.odoo import CHECKOUT, Odoo
from tests.stack.pgbouncer import PgBouncer
from tests.stack.wheels import unpacked

# cheap behind a pooler: a wave of websockets need not wait for Odoo's own pool
POOLED_OPTIONS = {"db_maxconn_gevent": 200}
EXISTING = "odoo-addon-bus-alt-connection==19.0.1.0.0.2"


@dataclasses.dataclass
class Rival:
    """One way to run Odoo.

    ``hears`` and ``cron`` tell whether notifications and triggers arrive at all, ``jobs`` whether
    jobs of queue_job are done.
    """

    name: str
    pooled: bool = True
    aliases: dict = dataclasses.field(default_factory=dict)
    addon: str = ""  # the folder that holds it
    hears: bool = True
    cron: bool = True
    jobs: bool = False

    def start(
        self,
        whole: Deployment,
        stack: contextlib.ExitStack,
        workers: int = 2,
        cron: int = 1,
        system: str = "",
        start: bool = True,
        beside: str = "",
    ) -> Server:
        """Start a prefork server, behind a PgBouncer of its own, until ``stack`` ends.

        :param system: more parameters of PgBouncer for the system database
        :param beside: an addon of the deployment's ``others`` to load server-wide
        """
        pooler = None
        path = whole.straight
        if self.pooled:
            number = len(list(whole.folder.glob("rival-*.log")))
            pooler = PgBouncer(
                whole.folder / f"rival-{number}",
                whole.postgres,
                whole.pgbouncer.passwords,
                aliases={"postgres": f"{self.aliases.get('postgres', 'postgres')} {system}"},
            ).start()
            stack.callback(pooler.stop)
            path = whole.pooled._replace(port=pooler.port)
        places = {
            "ODOO_IMDISPATCHER_DB_HOST": whole.straight.host,
            "ODOO_IMDISPATCHER_DB_PORT": str(whole.straight.port),
        }
        loaded = [series.SERVER_WIDE, *([beside] if beside else [])]
        loaded += ["bus_alt_connection"] * bool(self.addon)
        options = {"max_cron_threads": cron, "server_wide_modules": ",".join(loaded)}
        odoo = stack.enter_context(
            whole.odoo(
                path,
                start=start,
                workers=workers,
                addon=bool(self.addon),
                addons_path=f"{series.ADDONS},{self.addon}" if self.addon else series.ADDONS,
                environ=places if self.addon else {},
                options={**options, **(POOLED_OPTIONS if self.pooled else {})},
            )
        )
        return Server(self, whole, odoo, pooler)


@dataclasses.dataclass
class Server:
    """A rival that runs; ``pooler`` is its PgBouncer or None."""

    rival: Rival
    whole: Deployment
    odoo: Odoo
    pooler: PgBouncer | None

    @property
    def name(self) -> str:
        return self.rival.name


def existing_addon() -> str:
    """Return a folder with the addon of the same name that is on PyPI."""
    return str(unpacked(EXISTING))


def rivals() -> list[Rival]:
    sessions = {"postgres": "postgres pool_mode=session"}
    return [
        Rival("stock, no pooler", pooled=False, jobs=True),
        Rival("stock, PgBouncer", hears=False, cron=False),
        Rival("stock, session pool", aliases=sessions),
        Rival("existing addon", addon=existing_addon(), cron=False),
        Rival("bus_alt_connection", addon=str(CHECKOUT), jobs=True),
    ]
