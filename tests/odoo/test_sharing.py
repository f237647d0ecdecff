"""Two Odoo instances share one PostgreSQL by priority: each has a PgBouncer with its own cap."""

import contextlib
import time

import pytest

from ..stack.client import BusClient
from ..stack.deployment import running_deployment
from ..stack.odoo import ROLE, Odoo, Sender
from ..stack.pgbouncer import PgBouncer
from ..stack.process import wait_until
from ..stack.users import Users

pytestmark = pytest.mark.slow

# what each may have in all, and for one database: the rest is for the system database,
# where a NOTIFY must not wait for a free place
CAPS = {"pgbouncer.ini": 30, "reports.ini": 10}
POOLS = {"pgbouncer.ini": 20, "reports.ini": 8}
FIRST, REPORTS = CAPS
ALONE = 15  # seconds that the first instance has for itself
SECONDS = 60
# lasts long enough for the machine itself not to be what is scarce
QUERY = "SELECT count(*), pg_sleep(0.1) FROM res_users"


@pytest.fixture(scope="module")
def deployment():
    """With no other Odoo that listens."""
    with running_deployment() as whole:
        yield whole


def backends(pooler: PgBouncer) -> int:
    return len(pooler.admin("SHOW SERVERS"))


class Rate:
    """Queries per second of some users, from here on."""

    def __init__(self, users: Users):
        self._users = users
        self._done = users.done
        self._begin = time.monotonic()

    def __call__(self) -> float:
        return (self._users.done - self._done) / (time.monotonic() - self._begin)


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
        first = stack.enter_context(
            deployment.odoo(paths[FIRST], options=deployment.direct_settings)
        )
        # the other instance works on the same database
        reports = Odoo(
            deployment.folder / "reports",
            paths[REPORTS],
            database=first.database,
            options={**deployment.direct_settings, "data_dir": first.data_dir},
        )
        stack.callback(reports.stop)
        reports.start()
        sender = Sender(reports)
        stack.callback(sender.close)
        client = stack.enter_context(BusClient(first, "a"))
        load = {}
        for name in (FIRST, REPORTS):
            load[name] = stack.enter_context(Users(paths[name], first.database, 60, QUERY))
            if name == FIRST:
                time.sleep(5)  # until its pool is full
                rate = Rate(load[FIRST])
                time.sleep(ALONE)
                alone = rate()
        most = dict.fromkeys(CAPS, 0)
        in_all = 0
        both = Rate(load[FIRST])
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            now = {name: backends(pooler) for name, pooler in poolers.items()}
            most = {name: max(most[name], now[name]) for name in CAPS}
            ((count,),) = deployment.postgres.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]
            )
            in_all = max(in_all, count)
            print(f"backends: first {now[FIRST]}, reports {now[REPORTS]}, in all {count}")
            time.sleep(1)
        together = both()
        print(f"the first instance: {alone:.0f} queries/s alone, {together:.0f} beside the reports")
        sender.send("a", "from the other instance")
        client.wait_for("from the other instance", 20)
        for name, cap in CAPS.items():
            assert POOLS[name] <= most[name] <= cap, "loaded, and not beyond its cap"
        # what each may have, and one listener each; the shared deployment's own pool rests
        assert in_all <= sum(CAPS.values()) + 2 + len(deployment.pgbouncer.admin("SHOW SERVERS"))
        # a share of the server means a share of the work, and nobody takes from the first's
        assert together > 0.8 * alone
        assert load[FIRST].done > 1.5 * load[REPORTS].done
        assert not load[FIRST].errors
        assert not load[REPORTS].errors
    wait_until(lambda: not deployment.postgres.listeners(), "nobody listens any more")
