"""The listening connection itself: how it is set up and what it says."""

import psutil
import pytest

from .stack.client import BusClient
from .stack.postgres import Postgres
from .stack.process import wait_until


def test_keepalives_are_on(deployment):
    with deployment.odoo(options=deployment.direct) as odoo, BusClient(odoo, "a"):
        wait_until(deployment.postgres.listeners, "the dispatcher listens")
        ((pid, port),) = odoo.connections_to(deployment.straight.port)
        # /proc/net/tcp, column "tr": 02 is the keepalive timer
        ends = f":{port:04X}", f":{deployment.straight.port:04X}"
        with open(f"/proc/{pid}/net/tcp") as table:
            rows = [line.split() for line in table]
        (row,) = (row for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1]))
        assert row[5].startswith("02:")


def test_a_dsn_reaches_libpq(deployment):
    dsn = "application_name=from-dsn-imbus keepalives_idle=7"
    options = {**deployment.direct, "imdispatcher_db_dsn": dsn}
    with deployment.odoo(options=options) as odoo, BusClient(odoo, "a"):
        ((_pid, name, _port),) = wait_until(deployment.postgres.listeners, "the listener")
        assert name == "from-dsn-imbus"


def test_a_role_of_its_own(deployment):
    deployment.postgres.create_role("listener", "other-password", "")
    options = {
        **deployment.direct,
        "imdispatcher_db_user": "listener",
        "imdispatcher_db_password": "other-password",
        "imdispatcher_db_sslmode": "disable",
    }
    with deployment.odoo(options=options) as odoo, BusClient(odoo, "a"):
        wait_until(deployment.postgres.listeners, "the dispatcher listens")
        rows = deployment.postgres.execute(
            "SELECT usename, datname FROM pg_stat_activity WHERE application_name ~ '-imbus$'"
        )
        assert rows == [("listener", "postgres")]


def test_the_log_says_what_it_reached(deployment):
    with deployment.odoo(options=deployment.direct) as odoo, BusClient(odoo, "a"):
        ((backend, _name, _port),) = wait_until(deployment.postgres.listeners, "the listener")
        line = f"imbus: listening at 127.0.0.1:{deployment.straight.port}, PostgreSQL 1"
        wait_until(lambda: line in odoo.log(), line)
        assert f"database postgres, backend {backend}" in odoo.log()


def test_a_standby_where_the_primary_should_be(deployment):
    standby = Postgres(deployment.folder / "standby", primary=deployment.postgres).start()
    try:
        options = {**deployment.direct, "imdispatcher_db_port": standby.port}
        with deployment.odoo(options=options) as odoo, BusClient(odoo, "a"):
            line = f"imbus: deaf: 127.0.0.1:{standby.port} is a standby, which cannot LISTEN"
            wait_until(lambda: line in odoo.log(), line)
        both = {
            "imdispatcher_db_host": "127.0.0.1,127.0.0.1",
            "imdispatcher_db_port": f"{standby.port},{deployment.straight.port}",
        }
        with deployment.odoo(options=both) as odoo, BusClient(odoo, "a"):
            line = f"imbus: listening at 127.0.0.1:{deployment.straight.port}"
            wait_until(lambda: line in odoo.log(), line)
    finally:
        standby.remove()


@pytest.mark.parametrize("port", ["refused", "not PostgreSQL"])
def test_a_wrong_port_does_not_stop_the_server(deployment, port):
    with deployment.odoo(start=False) as odoo:
        wrong = {"refused": "1", "not PostgreSQL": str(odoo.port)}[port]
        odoo.environ.update(IMDISPATCHER_DB_HOST="127.0.0.1", IMDISPATCHER_DB_PORT=wrong)
        odoo.start()
        with BusClient(odoo, "a"):
            wait_until(lambda: "imbus: deaf: " in odoo.log(), "the error is logged")
        assert psutil.pid_exists(odoo.process.pid)
        assert odoo.answers()
