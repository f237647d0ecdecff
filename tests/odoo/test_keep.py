"""Connections to the system database are kept behind a pooler, and only there."""

import contextlib
import re

import psutil
import pytest

from ..stack import manager
from ..stack.deployment import deployment as running_deployment
from ..stack.odoo import ROLE, Sender, connections_of
from ..stack.process import wait_until
from .conftest import running


@pytest.fixture(scope="module")
def deployment():
    """With no other Odoo that keeps connections."""
    with running_deployment() as whole:
        yield whole


@contextlib.contextmanager
def sending(odoo, number=5):
    """A second Odoo process that has sent so many notifications and lives on."""
    sender = Sender(odoo)
    try:
        for i in range(number):
            sender.send("a", str(i))
        yield sender
    finally:
        sender.close()


def clients(deployment) -> set:
    """The connections of Odoo to the system database that PgBouncer holds open."""
    return {
        (row["port"], row["connect_time"])
        for row in deployment.pgbouncer.admin("SHOW CLIENTS")
        if row["database"] == "postgres" and row["user"] == ROLE
    }


def test_one_connection_for_all_notifications(deployment):
    with deployment.odoo(start=False, options=deployment.direct) as odoo, sending(odoo) as sender:
        (first,) = clients(deployment)
        sender.send("a", "one more")
        assert clients(deployment) == {first}


def test_a_notification_is_one_statement(deployment):
    postgres = deployment.postgres
    with deployment.odoo(start=False, options=deployment.direct) as odoo, sending(odoo) as sender:
        postgres.execute(f"ALTER ROLE {ROLE} SET log_statement = 'all'")
        try:
            deployment.pgbouncer.forget(
                "postgres"
            )  # new server connections take the role's setting
            before = len(postgres.process.text())
            sender.send("a", "one more")
            log = postgres.process.text()[before:]
        finally:
            postgres.execute(f"ALTER ROLE {ROLE} RESET log_statement")
            deployment.pgbouncer.forget("postgres")
    statements = [line for line in log.splitlines() if f"{ROLE}@postgres" in line]
    assert len([line for line in statements if "notify" in line.lower()]) == 1
    assert not [
        line for line in statements if re.search("BEGIN|COMMIT|SET (?!application_name)", line)
    ]


@pytest.mark.parametrize("where", ["odoo.conf", "environment"])
def test_it_can_be_turned_off(deployment, where):
    options, environ = dict(deployment.direct), {}
    if where == "odoo.conf":
        options["imdispatcher_keep_notify"] = "False"
    else:
        environ["IMDISPATCHER_KEEP_NOTIFY"] = "0"
    with deployment.odoo(start=False, options=options, environ=environ) as odoo, sending(odoo):
        assert clients(deployment) == set()


def test_without_a_pooler_nothing_is_kept(deployment):
    with deployment.odoo(
        deployment.straight, start=False, options=deployment.direct
    ) as odoo, sending(odoo) as sender:
        process = psutil.Process(sender.popen.pid)
        ports = [connection.laddr.port for connection in connections_of(process)]
        databases = deployment.postgres.execute(
            "SELECT datname FROM pg_stat_activity WHERE client_port = ANY(%s)", [ports]
        )
        assert databases == [(odoo.database,)]


def test_a_pgbouncer_that_was_away(deployment):
    with deployment.odoo(start=False, options=deployment.direct) as odoo, sending(odoo) as sender:
        deployment.pgbouncer.stop()
        deployment.pgbouncer.start()
        sender.send("a", "one more")
        assert len(clients(deployment)) == 1


@pytest.mark.slow
def test_databases_can_be_made_and_dropped(deployment):
    options = {**deployment.direct, **manager.OPTIONS}
    with running(deployment, options=options, named=False) as site:
        odoo = site.odoo
        assert site.deliver(5) == 5
        copy = f"{odoo.database}_copy"
        try:
            manager.duplicate(odoo, copy)
            assert deployment.postgres.execute("SELECT 1 FROM res_users LIMIT 1", dbname=copy)
        finally:
            deployment.pgbouncer.forget(copy)
            manager.drop(odoo, copy)
        wait_until(
            lambda: (
                not deployment.postgres.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", [copy]
                )
            ),
            "the copy is gone",
        )
