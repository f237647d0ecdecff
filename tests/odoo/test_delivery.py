"""Notifications arrive and jobs start, with a real Odoo behind a real PgBouncer."""

import pytest

from ..stack import series
from ..stack.client import BusClient
from ..stack.process import wait_until
from .conftest import BOTH, running

# a notification that is not lost arrives within milliseconds
LOST_AFTER = 5

# stock Odoo behind PgBouncer looks for jobs once a minute
LATE = 10

CRON_LISTENS = pytest.mark.skipif(
    not series.CRON_LISTENS, reason="before 15.0 Odoo starts jobs by the clock alone"
)


@pytest.mark.parametrize("mode", ["threaded", pytest.param("prefork", marks=pytest.mark.slow)])
def test_stock_behind_pgbouncer_delivers_nothing_and_starts_jobs_late(stock):
    assert stock.deliver(timeout=LOST_AFTER) == 0
    if series.CRON_LISTENS:
        assert not stock.starts(LATE)


@pytest.mark.smoke
@BOTH
def test_100_of_100(site):
    assert site.deliver() == 100


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.skipif(series.LONGPOLLING, reason="before 16.0 there are no websockets")
def test_quick_notifications_leave_no_websocket_deaf(prefork):
    """As they do in 16.0 alone, see test_odoo_faults."""
    assert all(prefork.hurry(timeout=30) for _try in range(3))


def test_what_readme_says_of_the_command_line(deployment):
    environ = {key.upper(): str(value) for key, value in deployment.direct_settings.items()}
    arguments = ("--load=web,bus_alt_connection",)
    with running(deployment, addon=False, environ=environ, arguments=arguments) as site:
        assert site.deliver(10) == 10


@pytest.mark.smoke
@CRON_LISTENS
@BOTH
def test_jobs_start_at_once(site):
    site.says("cron_trigger")
    site.says(": listening at ")
    assert site.starts(LATE)
    assert site.starts(LATE)


def test_a_threaded_server_has_one_direct_connection(threaded):
    with BusClient(threaded.odoo, threaded.channel()):
        threaded.says("imbus: listening at")
        (direct,) = threaded.odoo.connections_to(threaded.whole.direct.port)
        rows = [row for row in threaded.postgres.listeners() if row[2] == direct[1]]
        assert [name for _pid, name, _port in rows] == [f"odoo-{direct[0]}-listener"]
        assert threaded.odoo.connections_to(threaded.whole.pooled.port)


def test_a_prefork_server_has_one_direct_connection(prefork):
    """2 HTTP workers, gevent, 2 cron workers: the listener, and nothing else, is direct."""
    with BusClient(prefork.odoo, prefork.channel()):
        port = prefork.whole.direct.port
        wait_until(lambda: len(prefork.odoo.connections_to(port)) == 1, "one listener")
        direct = sorted(prefork.odoo.connections_to(port))
        if series.CRON_LISTENS:
            assert prefork.starts(LATE)
        assert sorted(prefork.odoo.connections_to(port)) == direct
        assert prefork.odoo.connections_to(prefork.whole.pooled.port)


@CRON_LISTENS
def test_a_job_that_notifies_does_so_through_the_pooler(threaded):
    """A threaded server runs jobs in the thread that listens."""
    job, channel = "noisy job", threaded.channel()
    assert threaded.starts(LATE, job)
    code = (
        f"env['bus.bus']._sendone('{channel}', '{series.MESSAGE_TYPE}', {{'text': 'from a job'}})"
    )
    threaded.postgres.execute(
        "UPDATE ir_act_server SET code = %s WHERE id IN"
        " (SELECT ir_actions_server_id FROM ir_cron WHERE cron_name::text LIKE %s)",  # JSON in 16.0
        [code, f"%{job}%"],
        dbname=threaded.odoo.database,
    )
    with BusClient(threaded.odoo, channel) as bus:
        assert threaded.starts(LATE, job)
        bus.wait_for("from a job")
    assert len(threaded.odoo.connections_to(threaded.whole.direct.port)) == 1


def test_nothing_set_works_as_stock_and_warns_once(deployment):
    with running(deployment, workers=2) as site:
        assert site.deliver(10, timeout=LOST_AFTER) == 0
        assert site.odoo.log().count("no imdispatcher_db_* setting is") == 1


@pytest.mark.slow
def test_nothing_set_without_a_pooler(deployment):
    with running(deployment, deployment.direct) as site:
        assert site.deliver(10) == 10


@pytest.mark.slow
@pytest.mark.skipif(series.NUMBER < 19, reason="before 19.0 odoo.conf beats PG*")
def test_what_is_not_set_follows_pg_variables_as_odoo_does(deployment):
    wrong = deployment.pooled._replace(password="not the password")
    pg = {"PGPASSWORD": deployment.password}
    with running(deployment, wrong, options=deployment.direct_settings, environ=pg) as site:
        assert site.deliver(10) == 10
        site.says("imbus: listening at")


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["ODOO_", ""])
def test_the_environment_beats_odoo_conf(deployment, prefix):
    environ = {
        f"{prefix}{key.upper()}": str(value) for key, value in deployment.direct_settings.items()
    }
    wrong = {"imdispatcher_db_port": 1}
    with running(deployment, environ=environ, options=wrong) as site:
        assert site.deliver(10) == 10


@pytest.mark.slow
@pytest.mark.skipif(not series.GEVENT_POOL, reason="one pool size for all processes")
@pytest.mark.parametrize("addon, delivered", [(False, 0), (True, 20)], ids=["stock", "addon"])
def test_the_listener_takes_no_slot_of_the_pool(deployment, addon, delivered):
    """In a pool of one connection, stock Odoo's listener takes the only slot."""
    options = {**deployment.direct_settings, "db_maxconn_gevent": 1}
    with running(deployment, deployment.direct, workers=1, addon=addon, options=options) as site:
        assert site.deliver(20, timeout=LOST_AFTER) == delivered
        assert ("Connection Pool Is Full" in site.odoo.log()) is not addon


@pytest.mark.slow
@pytest.mark.skipif(series.NUMBER < 18, reason="no replica options before 18.0")
def test_replica_options_do_not_move_the_listener(deployment):
    replica = {"db_replica_host": deployment.pooled.host, "db_replica_port": 1}
    options = {**deployment.direct_settings, "max_cron_threads": 1, **replica}
    with deployment.odoo(options=options, start=False) as odoo:
        odoo.launch()
        line = f"cron_trigger: listening at 127.0.0.1:{deployment.direct.port}"
        odoo.process.wait_for(lambda: line in odoo.log(), line)
