"""PostgreSQL, PgBouncer in front of it, and Odoo servers that use them."""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import shutil

from .odoo import DATABASE, ROLE, Endpoint, Odoo, prepared
from .poolers import pooler
from .postgres import Postgres
from .process import run_folder, started


class Servers:
    """One PostgreSQL, one pooler, and a role for Odoo.

    The pooler is PgBouncer in transaction mode, unless ``./run test --pooler`` names another one.
    ``direct`` is the endpoint of PostgreSQL, ``pooled`` the one of the pooler.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        data: pathlib.Path | None = None,
        wire=None,
        options=None,
        host: str = "127.0.0.1",
    ):
        self.folder = folder
        self.password = secrets.token_hex(16)
        self.postgres = Postgres(folder / "postgres", data, wire=wire, options=options, host=host)
        self.pgbouncer = pooler(
            folder / "pgbouncer",
            self.postgres,
            {"ODOO_DB_PASSWORD": self.password, "PGBOUNCER_ADMIN_PASSWORD": secrets.token_hex(16)},
        )
        self.direct = Endpoint(self.postgres.host, self.postgres.port, ROLE, self.password)
        self.pooled = Endpoint(self.pgbouncer.host, self.pgbouncer.port, ROLE, self.password)

    def start(self):
        self.postgres.start()
        self.postgres.create_role(ROLE, self.password)
        self.pgbouncer.start()
        return self

    def stop(self):
        self.pgbouncer.stop()
        self.postgres.stop()

    @property
    def direct_settings(self) -> dict:
        """The two settings that an operator adds to odoo.conf."""
        return {
            "imdispatcher_db_host": self.direct.host,
            "imdispatcher_db_port": self.direct.port,
        }


class Deployment(Servers):
    """Servers with a prepared database of Odoo's."""

    def __init__(
        self,
        folder: pathlib.Path,
        modules: str = "bus",
        wire=None,
        options: dict | None = None,
        others: pathlib.Path | None = None,
    ):
        self.others = others
        self.data = prepared(modules, others)
        super().__init__(folder, self.data / "pgdata", wire, options)

    def start(self):
        super().start()
        # CREATE DATABASE fails while another session uses the template
        self.postgres.execute(f'ALTER DATABASE "{DATABASE}" ALLOW_CONNECTIONS false')
        return self

    @contextlib.contextmanager
    def odoo(self, db: Endpoint | None = None, start: bool = True, **options):
        """An Odoo server on a new copy of the prepared database, behind PgBouncer by default."""
        name = f"odoo_{secrets.token_hex(4)}"
        self.postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE "{DATABASE}" OWNER "{ROLE}"')
        odoo = Odoo(
            self.folder / name,
            db or self.pooled,
            database=name,
            data=self.data / "odoo",
            others=self.others,
            **options,
        )
        with contextlib.suppress(FileNotFoundError):
            (odoo.data_dir / "filestore" / DATABASE).rename(odoo.data_dir / "filestore" / name)
        try:
            yield odoo.start() if start else odoo
        finally:
            odoo.stop()
            self.pgbouncer.forget(name)
            if self.postgres.process.running():
                self.postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            shutil.rmtree(odoo.data_dir, ignore_errors=True)


@contextlib.contextmanager
def running_deployment(
    modules: str = "bus",
    wire=None,
    options: dict | None = None,
    others: pathlib.Path | None = None,
):
    """A running ``Deployment`` that leaves nothing behind.

    :param options: settings of PostgreSQL
    :param others: a folder with third-party addons
    """
    with run_folder() as folder, started(
        Deployment(folder, modules, wire, options, others)
    ) as deployment:
        yield deployment
