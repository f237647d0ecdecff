"""Where a direct connection is tried, by what the server at the other end says of itself."""

from __future__ import annotations

import pytest

from bus_alt_connection.postgres import route
from bus_alt_connection.postgres.route import Route, list_attempts

POOLED = {"host": "pgbouncer.example", "port": "6432", "dbname": "postgres", "sslmode": "prefer"}
AUTO = {"host": "auto", "user": "odoo", "dbname": "postgres"}


def attempts(address, pooler="pgbouncer.example", here=False, **more) -> list:
    """Return (host, port) of each attempt."""
    there = Route("live", pooler, here, "shop", address, 5432, False, "public", "odoo")
    pooled = {**POOLED, "host": pooler}
    found = list_attempts({**AUTO, **more}, pooled, there)
    return [(attempt.get("host"), attempt.get("port")) for attempt in found]


POOLER = ("pgbouncer.example", "6432")


@pytest.mark.parametrize(
    "address, expected",
    [
        ("10.0.0.5", ("10.0.0.5", "5432")),
        ("fd00::5", ("fd00::5", "5432")),
        # pooler and PostgreSQL on one machine, which db_host names
        ("127.0.0.1", ("pgbouncer.example", "5432")),
        ("::1", ("pgbouncer.example", "5432")),
        (None, ("pgbouncer.example", "5432")),
    ],
)
def test_the_server_itself_then_the_pooler(address, expected):
    assert attempts(address) == [expected, POOLER]


def test_a_port_that_is_set_counts():
    assert attempts("10.0.0.5", port="5433")[0] == ("10.0.0.5", "5433")


@pytest.mark.parametrize("folder", ["/run/postgresql", "@pooler"])
def test_a_pooler_on_odoos_machine_that_is_reached_through_a_socket(folder):
    """PostgreSQL's own socket may be in the same folder; else its TCP port."""
    assert attempts(None, folder, here=True)[:2] == [(folder, "5432"), ("127.0.0.1", "5432")]


@pytest.mark.parametrize("host", ["::1", "127.0.1.1"])
def test_a_pooler_at_another_address_of_odoos_machine(host):
    """PostgreSQL may be at 127.0.0.1 alone."""
    assert ("127.0.0.1", "5432") in attempts("127.0.0.1", host, here=True)


def test_a_named_host_wins():
    there = Route("live", "pgbouncer", False, "shop", "10.0.0.5", 5432, False, "public", "odoo")
    named = {"host": "postgres.example", "port": "5432"}
    assert list_attempts(named, POOLED, there) == [named]


def required(address, **more) -> list:
    there = Route(
        "live", "pgbouncer.example", False, "shop", address, 5432, False, "public", "odoo"
    )
    return [a.get("require_auth") for a in list_attempts({**AUTO, **more}, POOLED, there)]


def test_no_password_goes_to_a_server_that_was_not_named_unless_it_is_safe(monkeypatch):
    monkeypatch.setattr(route, "libpq_version", lambda: 160000)
    assert required("10.0.0.5") == [route.SAFE_AUTH, None]
    # it encrypts, but checks no certificate: any server may ask for the password then
    assert required("10.0.0.5", sslmode="require") == [route.SAFE_AUTH, None]
    assert required("10.0.0.5", sslmode="verify-ca") == [None, None]
    assert required("127.0.0.1") == [None, None], "db_host names that machine"
    assert required("10.0.0.5", require_auth="md5") == ["md5", "md5"]
    monkeypatch.setattr(route, "libpq_version", lambda: 150000)
    assert required("10.0.0.5") == [None, None]
