"""docker-compose.yml, as it stands, from ``up`` to ``down``."""

from __future__ import annotations

import contextlib
import time

import pytest
import requests

from ..stack.client import BusClient
from .checks import (
    KILLED,
    SECRETS,
    deliver,
    exit_codes,
    login,
    people_chat,
    shown_secrets,
    users,
)
from .project import ContainerSender, Project

CHECK = "odoo --addons-path=/mnt/extra-addons buscheck --load=base,rpc,web,bus_alt_connection"
STOP = 10  # seconds


@pytest.fixture(scope="module")
def project(engine):
    project = Project(engine, "trial", SECRETS)
    begin = time.monotonic()
    with project.running("--build"):
        print(f"up after {time.monotonic() - begin:.0f} s")
        yield project


def test_all_are_healthy(project):
    assert project.health() == {"postgres": "healthy", "pgbouncer": "healthy", "odoo": "healthy"}


def test_login(project):
    assert login(project)
    assert not login(project, password="wrong")


@pytest.mark.smoke
def test_50_of_50_live(project):
    assert deliver(project) == 50


@pytest.mark.smoke
def test_buscheck(project, record_property):
    version = project.exec("pgbouncer", "pgbouncer", "--version").stdout.split()[1]
    record_property("pooler", f"PgBouncer {version}, containers")
    record_property(
        "postgresql", project.exec("postgres", "postgres", "--version").stdout.split()[2]
    )
    done = project.exec("odoo", *CHECK.split())
    assert done.stdout.splitlines()[-1] == "Notifications arrive."


def test_two_people_chat(project):
    people_chat(project)


def test_a_second_odoo_with_its_own_share(project):
    project.profiles = ["reports"]
    try:
        project.up()
        assert set(project.health().values()) == {"healthy"}
        with contextlib.closing(ContainerSender(project)) as sender:
            site = project.at(8070)
            with BusClient(site, "shared") as client:
                sender.send("shared", "from the other one")
                client.wait_for("from the other one", 10)
        sizes = {name: share(project, name) for name in ("pgbouncer", "pgbouncer-reports")}
        assert sizes == {"pgbouncer": "30", "pgbouncer-reports": "10"}
        project.compose("stop", "odoo-reports", "pgbouncer-reports")
        assert KILLED not in exit_codes(project).values()
        project.compose("rm", "--force", "odoo-reports", "pgbouncer-reports")
    finally:
        project.profiles = []


def share(project: Project, service: str) -> str:
    """Return max_user_connections, as the console of this PgBouncer says."""
    console = "psql -h 127.0.0.1 -p 6432 -U pgbouncer -At -c 'SHOW CONFIG' pgbouncer"
    command = f'PGPASSWORD="$PGBOUNCER_ADMIN_PASSWORD" {console}'
    rows = project.exec(service, "sh", "-c", command).stdout.splitlines()
    return dict(row.split("|")[:2] for row in rows)["max_user_connections"]


def test_no_container_runs_as_root(project):
    assert [service for service, uid in users(project).items() if uid == 0] == []


def test_root_file_systems_are_read_only_where_they_can_be(project):
    writable = [
        service
        for service in project.services()
        if not project.inspect(service)["HostConfig"]["ReadonlyRootfs"]
    ]
    # the role's script is copied into its container, which Compose cannot where that is read-only
    assert writable == ["postgres"]


def test_no_password_is_shown(project):
    assert shown_secrets(project) == []


def test_stop_ends_all_in_time(project):
    """What waits in the outbox is sent, and PostgreSQL shuts down."""
    begin = time.monotonic()
    project.compose("stop")
    took = time.monotonic() - begin
    codes = exit_codes(project)
    print(f"stopped within {took:.1f} s: {codes}")
    assert KILLED not in codes.values() and took <= STOP
    assert "database system is shut down" in project.log("postgres")


def test_down_and_up_keep_the_data(project):
    project.up()
    assert "not properly shut down" not in project.log("postgres")
    project.shell("odoo", "env.company.name = 'kept'; env.cr.commit()")
    project.down()
    assert project.health() == {}
    project.up()
    assert "not properly shut down" not in project.log("postgres")
    assert "kept" in project.shell("odoo", "print(env.company.name)")
    assert requests.get(f"{project.url}/web/login", timeout=60).ok
    assert deliver(project) == 50
