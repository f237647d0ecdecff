"""Every way to run Odoo behind PgBouncer, beside Odoo without it."""

from __future__ import annotations

import contextlib
import dataclasses

from tests.stack import series
from tests.stack.deployment import Deployment
from tests.stack.odoo import CHECKOUT, Endpoint, Odoo
from tests.stack.pgbouncer import PgBouncer
from tests.stack.wheels import unpacked

# connections to a pooler are cheap, so a wave of websockets does not have to wait for Odoo's pool
POOLED_OPTIONS = {"db_maxconn_gevent": 200}
EXISTING = "odoo-addon-bus-alt-connection==19.0.1.0.0.2"


@dataclasses.dataclass
class Setup:
    """One way to run Odoo.

    ``hears`` and ``cron``: notifications and triggers arrive at all; ``jobs``: queue_job's jobs are
    done.
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
        deployment: Deployment,
        stack: contextlib.ExitStack,
        workers: int = 2,
        cron: int = 1,
        system: str = "",
        start: bool = True,
        beside: str = "",
        straight: Endpoint | None = None,
    ) -> Server:
        """Start a prefork server, behind a PgBouncer of its own, until ``stack`` ends.

        :param system: more parameters of PgBouncer for the system database
        :param beside: one of the deployment's third-party addons to load server-wide
        :param straight: PostgreSQL itself, where something is between
        """
        pooler = None
        straight = straight or deployment.direct
        endpoint = straight
        if self.pooled:
            number = len(list(deployment.folder.glob("setup-*.log")))
            pooler = PgBouncer(
                deployment.folder / f"setup-{number}",
                deployment.postgres,
                deployment.pgbouncer.passwords,
                aliases={"postgres": f"{self.aliases.get('postgres', 'postgres')} {system}"},
            ).start()
            stack.callback(pooler.stop)
            endpoint = deployment.pooled._replace(port=pooler.port)
        direct = {
            "ODOO_IMDISPATCHER_DB_HOST": straight.host,
            "ODOO_IMDISPATCHER_DB_PORT": str(straight.port),
        }
        loaded = [series.SERVER_WIDE, *([beside] if beside else [])]
        loaded += ["bus_alt_connection"] * bool(self.addon)
        options = {"max_cron_threads": cron, "server_wide_modules": ",".join(loaded)}
        odoo = stack.enter_context(
            deployment.odoo(
                endpoint,
                start=start,
                workers=workers,
                addon=bool(self.addon),
                addons_path=f"{series.ADDONS},{self.addon}" if self.addon else series.ADDONS,
                environ=direct if self.addon else {},
                options={**options, **(POOLED_OPTIONS if self.pooled else {})},
            )
        )
        return Server(self, deployment, odoo, pooler)


@dataclasses.dataclass
class Server:
    """A setup that runs; ``pooler`` is its PgBouncer or None."""

    setup: Setup
    deployment: Deployment
    odoo: Odoo
    pooler: PgBouncer | None

    @property
    def name(self) -> str:
        return self.setup.name


def existing_addon() -> str:
    """Return a folder with the addon of the same name that is on PyPI."""
    return str(unpacked(EXISTING))


def setups() -> list[Setup]:
    sessions = {"postgres": "postgres pool_mode=session"}
    return [
        Setup("stock, no pooler", pooled=False, jobs=True),
        Setup("stock, PgBouncer", hears=False, cron=False),
        Setup("stock, session pool", aliases=sessions),
        Setup("existing addon", addon=existing_addon(), cron=False),
        Setup("bus_alt_connection", addon=str(CHECKOUT), jobs=True),
    ]
