"""``./run bench backups``: what backups by the database manager do to other users.

8 users query through PgBouncer while the database manager makes backups; then each backup
is restored, the last one through the database manager while the users query on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import zipfile

from tests.stack import manager, series
from tests.stack.deployment import running_deployment
from tests.stack.odoo import CHECKOUT
from tests.stack.postgres import SERVERS
from tests.stack.process import wait_until
from tests.stack.users import Users


def restores(deployment, content: bytes) -> bool:
    """Tell whether a backup can be restored, by loading its dump into an empty database."""
    dump = zipfile.ZipFile(io.BytesIO(content)).read("dump.sql")
    deployment.postgres.execute("CREATE DATABASE scratch")
    try:
        loaded = subprocess.run(
            [
                *(SERVERS / "tools" / "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1"),
                *("-h", deployment.postgres.folder, "-p", str(deployment.postgres.port)),
                *("-U", "postgres", "-d", "scratch"),
            ],
            input=dump,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=CHECKOUT,
        )
        if loaded.returncode:
            return False
        rows = deployment.postgres.execute("SELECT count(*) FROM res_users", dbname="scratch")
        return rows[0][0] > 0
    finally:
        deployment.postgres.execute("DROP DATABASE scratch WITH (FORCE)")


def measure(addon: bool, number: int):
    with running_deployment() as deployment:
        options = {**deployment.direct_settings, **manager.OPTIONS}
        with deployment.odoo(addon=addon, options=options) as odoo:
            backups = []
            with Users(deployment.pooled, odoo.database) as users:
                for _i in range(number):
                    # stock Odoo: its own queries may fail, and then there is no backup
                    with contextlib.suppress(RuntimeError):
                        backups.append(manager.backup(odoo))
            good = sum(restores(deployment, content) for content in backups)
            print(
                f"    backups made: {len(backups)} of {number}, that restore: {good};"
                f" queries of others that failed: {len(users.errors):,} of {users.done:,}",
                flush=True,
            )
            if not addon:
                return
            try:
                with Users(deployment.pooled, odoo.database) as users:
                    manager.restore(odoo, "restored", backups[-1])
                    enough = users.done + 1000
                    wait_until(lambda: users.done > enough, "1,000 queries")
            finally:
                deployment.pgbouncer.forget("restored")
                deployment.postgres.execute("DROP DATABASE IF EXISTS restored WITH (FORCE)")
            print(
                "    during and after a restore, queries of others that failed:"
                f" {len(users.errors):,} of {users.done:,}"
            )


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench backups", description=__doc__)
    parser.add_argument("--number", type=int, default=10, help="backups")
    number = parser.parse_args(arguments).number
    print(f"Backups by the database manager behind PgBouncer, Odoo {series.SERIES}\n")
    for name, addon in (("stock Odoo", False), ("bus_alt_connection", True)):
        print(f"  {name}")
        measure(addon, number)
