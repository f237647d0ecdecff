"""Two Odoo instances share one PostgreSQL by priority: each has a PgBouncer with its own cap."""

import contextlib
import time

from .stack.client import BusClient
from .stack.odoo import ROLE, Odoo, Sender
from .stack.pgbouncer import PgBouncer
from .stack.process import wait_until
from .stack.users import Users

# what each may have in all, and for one database: the rest is for the system database,
# where a NOTIFY must not wait for a free place
CAPS = {"pgbouncer.ini": 30, "reports.ini": 10}
POOLS = {"pgbouncer.ini": 20, "reports.ini": 8}
FIRST, REPORTS = CAPS
SECONDS = 30


def backends(pooler: PgBouncer) -> int:
    return len(pooler.admin("SHOW SERVERS"))


def test_each_instance_keeps_to_its_share(deployment):
    with contextlib.ExitStack() as stack:
        poolers = {}
        for name in CAPS:
            poolers[name] = PgBouncer(
                deployment.folder / f"share-{name}",
                deployment.postgres,
                deployment.pgbouncer.passwords,
                ini=name,
            )
            stack.callback(poolers[name].stop)
            poolers[name].start()
        paths = {
            name: deployment.pooled._replace(port=pooler.port) for name, pooler in poolers.items()
        }
        first = stack.enter_context(deployment.odoo(paths[FIRST], options=deployment.direct))
        # the other instance works on the same database
        reports = Odoo(
            deployment.folder / "reports",
            paths[REPORTS],
            database=first.database,
            options={**deployment.direct, "data_dir": first.data_dir},
        )
        stack.callback(reports.stop)
        reports.start()
        sender = Sender(reports)
        stack.callback(sender.close)
        client = stack.enter_context(BusClient(first, "a"))
        load = {
            name: stack.enter_context(
                Users(path, first.database, 60, "SELECT count(*), pg_sleep(0.02) FROM res_users")
            )
            for name, path in paths.items()
        }
        most = dict.fromkeys(CAPS, 0)
        in_all = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for name, pooler in poolers.items():
                most[name] = max(most[name], backends(pooler))
            ((count,),) = deployment.postgres.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]
            )
            in_all = max(in_all, count)
            time.sleep(1)
        sender.send("a", "from the other instance")
        client.wait_for("from the other instance", 20)
        for name, cap in CAPS.items():
            assert POOLS[name] <= most[name] <= cap, "loaded, and not beyond its cap"
        # what each may have, and one listener each; the shared deployment's own pool rests
        assert in_all <= sum(CAPS.values()) + 2 + len(deployment.pgbouncer.admin("SHOW SERVERS"))
        # a share of the server means a share of the work
        assert load[FIRST].done > 1.5 * load[REPORTS].done
        assert not load[FIRST].errors
        assert not load[REPORTS].errors
    wait_until(lambda: not deployment.postgres.listeners(), "nobody listens any more")
