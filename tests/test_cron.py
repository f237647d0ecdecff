"""A cron job that is triggered starts at once behind PgBouncer (15.0 on)."""

import pytest

from .stack import series
from .stack.client import BusClient
from .stack.odoo import Sender
from .stack.process import wait_until

pytestmark = pytest.mark.skipif(
    not series.CRON_LISTENS, reason="before 15.0 Odoo starts jobs by the clock alone"
)

MODES = pytest.mark.parametrize("workers", [0, 2], ids=["threaded", "prefork"])

CRON = {"max_cron_threads": 1}

# stock Odoo behind PgBouncer looks once a minute
LATE = 10


def starts(odoo, job: str, timeout: float) -> bool:
    before = series.job_starts(odoo.log(), job)
    sender = Sender(odoo)
    try:
        sender.trigger(job)
    finally:
        sender.close()
    try:
        return wait_until(lambda: series.job_starts(odoo.log(), job) > before, job, timeout)
    except TimeoutError:
        return False


@MODES
def test_stock_behind_pgbouncer_is_late(deployment, workers):
    with deployment.odoo(workers=workers, addon=False, options=CRON) as odoo:
        assert not starts(odoo, "late job", LATE)


@MODES
def test_addon_starts_jobs_at_once(deployment, workers):
    with deployment.odoo(workers=workers, options={**deployment.direct, **CRON}) as odoo:
        line = "cron_trigger: listening at"
        wait_until(lambda: line in odoo.log(), line)
        assert starts(odoo, "first job", LATE)
        assert starts(odoo, "second job", LATE)


def test_jobs_stay_pooled(deployment):
    """4 HTTP workers, gevent, 2 cron workers: three listeners and nothing else are direct."""
    options = {**deployment.direct, "max_cron_threads": 2}
    with deployment.odoo(workers=4, options=options) as odoo, BusClient(odoo, "a"):
        wait_until(lambda: len(deployment.postgres.listeners()) == 3, "three listeners")
        assert starts(odoo, "a job", LATE)
        direct = odoo.connections_to(deployment.straight.port)
        names = [name for _pid, name, _port in deployment.postgres.listeners()]
        assert len(direct) == 3
        assert len(odoo.connections_to(deployment.pooled.port)) >= 1
        assert sum(name.endswith("-imbus") for name in names) == 1
        assert sum(name.endswith("-cron_trigger") for name in names) == 2


def test_a_job_that_notifies_does_so_through_the_pooler(deployment):
    """A threaded server runs jobs in the listener's own thread."""
    code = f"env['bus.bus']._sendone('a', '{series.MESSAGE_TYPE}', {{'text': 'from a job'}})"
    with deployment.odoo(options={**deployment.direct, **CRON}) as odoo, BusClient(
        odoo, "a"
    ) as bus:
        assert starts(odoo, "noisy job", LATE)
        deployment.postgres.execute(
            "UPDATE ir_act_server SET code = %s WHERE id IN"
            " (SELECT ir_actions_server_id FROM ir_cron WHERE cron_name = 'noisy job')",
            [code],
            dbname=odoo.database,
        )
        assert starts(odoo, "noisy job", LATE)
        bus.wait_for("from a job")
        # a session that the job had got straight would have said so too
        assert odoo.log().count("cron_trigger: listening at") == 1
        assert len(odoo.connections_to(deployment.straight.port)) == 2, "cron and bus"


@pytest.mark.skipif(series.NUMBER < 18, reason="no replica options before 18.0")
def test_replica_options_do_not_move_the_listener(deployment):
    replica = {"db_replica_host": deployment.pooled.host, "db_replica_port": 1}
    with deployment.odoo(options={**deployment.direct, **CRON, **replica}, start=False) as odoo:
        odoo.launch()
        line = f"cron_trigger: listening at 127.0.0.1:{deployment.straight.port}"
        odoo.process.wait_for(lambda: line in odoo.log(), line)
