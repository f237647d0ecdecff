"""Notifications arrive at a websocket of a real Odoo behind a real PgBouncer."""

import pytest

from .stack import series
from .stack.client import BusClient
from .stack.odoo import Sender
from .stack.process import wait_until

MODES = pytest.mark.parametrize("workers", [0, 2], ids=["threaded", "prefork"])

# a notification that is not lost arrives within milliseconds
LOST_AFTER = 5


def environ(whole, prefix=""):
    return {
        f"{prefix}IMDISPATCHER_DB_HOST": whole.straight.host,
        f"{prefix}IMDISPATCHER_DB_PORT": str(whole.straight.port),
    }


@MODES
def test_stock_behind_pgbouncer_delivers_nothing(deployment, deliver, workers):
    with deployment.odoo(workers=workers, addon=False) as odoo:
        assert deliver(odoo, timeout=LOST_AFTER) == 0


def test_stock_straight_delivers(deployment, deliver):
    with deployment.odoo(deployment.straight, addon=False) as odoo:
        assert deliver(odoo) == 100


@MODES
def test_addon_delivers_set_in_odoo_conf(deployment, deliver, workers):
    with deployment.odoo(workers=workers, options=deployment.direct) as odoo:
        assert deliver(odoo) == 100


@pytest.mark.parametrize("prefix", ["", "ODOO_"])
def test_addon_delivers_set_in_environment(deployment, deliver, prefix):
    with deployment.odoo(environ=environ(deployment, prefix)) as odoo:
        assert deliver(odoo) == 100


def test_addon_delivers_set_by_dsn(deployment, deliver):
    dsn = f"postgresql://{deployment.straight.host}:{deployment.straight.port}"
    with deployment.odoo(options={"imdispatcher_db_dsn": dsn}) as odoo:
        assert deliver(odoo) == 100


def test_addon_delivers_over_socket_folder(deployment, deliver):
    socket = {
        "imdispatcher_db_host": deployment.postgres.folder,
        "imdispatcher_db_port": deployment.postgres.port,
    }
    with deployment.odoo(options=socket) as odoo:
        assert deliver(odoo) == 100
        assert f"imbus: listening at {deployment.postgres.folder}:" in odoo.log()


def test_addon_delivers_with_first_of_two_hosts_down(deployment, deliver):
    hosts = {
        "imdispatcher_db_host": "127.0.0.1,127.0.0.1",
        "imdispatcher_db_port": f"1,{deployment.straight.port}",
    }
    with deployment.odoo(options=hosts) as odoo:
        assert deliver(odoo) == 100
        assert f"imbus: listening at 127.0.0.1:{deployment.straight.port}," in odoo.log()


def test_nothing_set_works_as_stock_and_warns_once(deployment, deliver):
    with deployment.odoo(workers=2) as odoo:
        assert deliver(odoo, 10, timeout=LOST_AFTER) == 0
        assert odoo.log().count("no imdispatcher_db_* setting is") == 1
    with deployment.odoo(deployment.straight) as odoo:
        assert deliver(odoo, 10) == 10


@pytest.mark.skipif(series.NUMBER < 19, reason="before 19.0 odoo.conf beats PG*")
def test_what_is_not_set_follows_pg_variables_as_odoo_does(deployment, deliver):
    wrong = deployment.pooled._replace(password="not the password")
    pg = {"PGPASSWORD": deployment.password}
    with deployment.odoo(wrong, options=deployment.direct, environ=pg) as odoo:
        assert deliver(odoo, 10) == 10
        assert "imbus: listening at" in odoo.log()


def test_environment_names_that_differ(deployment, deliver):
    both = {**environ(deployment, "ODOO_"), "IMDISPATCHER_DB_PORT": "1"}
    with deployment.odoo(environ=both) as odoo:
        assert deliver(odoo, 10) == 10
        assert "IMDISPATCHER_DB_PORT and ODOO_IMDISPATCHER_DB_PORT are both set" in odoo.log()


@MODES
def test_only_the_listener_is_direct(deployment, workers):
    with deployment.odoo(workers=workers, options=deployment.direct) as odoo:
        sender = Sender(odoo)
        try:
            with BusClient(odoo, "a") as one, BusClient(odoo, "a") as two:
                for i in range(20):
                    sender.send("a", str(i))
                one.wait_for("19")
                two.wait_for("19")
                direct = odoo.connections_to(deployment.straight.port)
                pooled = odoo.connections_to(deployment.pooled.port)
                backends = deployment.postgres.listeners()
        finally:
            sender.close()
        assert len(direct) == 1
        assert len(pooled) >= 1
        ((_pid, name, client_port),) = backends
        ((pid, local_port),) = direct
        assert (name, client_port) == (f"odoo-{pid}-imbus", local_port)


@pytest.mark.skipif(not series.GEVENT_POOL, reason="one pool size for all processes")
@pytest.mark.parametrize("addon, delivered", [(False, 0), (True, 20)], ids=["stock", "addon"])
def test_the_listener_takes_no_slot_of_the_pool(deployment, deliver, addon, delivered):
    """In a pool of one connection, stock Odoo's listener takes the only slot."""
    options = {**deployment.direct, "db_maxconn_gevent": 1}
    with deployment.odoo(deployment.straight, workers=1, addon=addon, options=options) as odoo:
        assert deliver(odoo, 20, timeout=LOST_AFTER) == delivered
        assert ("Connection Pool Is Full" in odoo.log()) is not addon


def test_a_stopped_server_leaves_no_listener(deployment):
    with deployment.odoo(options=deployment.direct) as odoo:
        with BusClient(odoo, "a"):
            wait_until(deployment.postgres.listeners, "the dispatcher listens")
        odoo.stop()
        wait_until(lambda: not deployment.postgres.listeners(), "the listener is gone")
