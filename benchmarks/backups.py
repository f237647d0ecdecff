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
from tests.stack.deployment import deployment
from tests.stack.odoo import CHECKOUT
from tests.stack.postgres import SERVERS
from tests.stack.process import wait_until
from tests.stack.users import Users


def restores(whole, content: bytes) -> bool:
    """Tell whether a backup can be restored, by loading its dump into an empty database."""
    dump = zipfile.ZipFile(io.BytesIO(content)).read("dump.sql")
    whole.postgres.execute("CREATE DATABASE scratch")
    try:
        loaded = subprocess.run(
            [
                *(SERVERS / "tools" / "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1"),
                *("-h", whole.postgres.folder, "-p", str(whole.postgres.port)),
                *("-U", "postgres", "-d", "scratch"),
            ],
            input=dump,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=CHECKOUT,
        )
        if loaded.returncode:
            return False
        rows = whole.postgres.execute("SELECT count(*) FROM res_users", dbname="scratch")
        return rows[0][0] > 0
    finally:
        whole.postgres.execute("DROP DATABASE scratch WITH (FORCE)")


def measure(addon: bool, number: int):
    with deployment() as whole:
        options = {**whole.direct, **manager.OPTIONS}
        with whole.odoo(addon=addon, options=options) as odoo:
            backups = []
            with Users(whole.pooled, odoo.database) as users:
                for _i in range(number):
                    # stock Odoo may be its own victim
                    with contextlib.suppress(RuntimeError):
                        backups.append(manager.backup(odoo))
            good = sum(restores(whole, content) for content in backups)
            print(
                f"    backups made: {len(backups)} of {number}, that restore: {good};"
                f" queries of others that failed: {len(users.errors):,} of {users.done:,}",
                flush=True,
            )
            if not addon:
                return
            try:
                with Users(whole.pooled, odoo.database) as users:
                    manager.restore(odoo, "restored", backups[-1])
                    enough = users.done + 1000
                    wait_until(lambda: users.done > enough, "1,000 queries")
            finally:
                whole.pgbouncer.forget("restored")
                whole.postgres.execute("DROP DATABASE IF EXISTS restored WITH (FORCE)")
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
