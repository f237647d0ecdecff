"""What ``buscheck`` says of Odoo's databases: where each of the two ways leads."""

from __future__ import annotations

import contextlib
import re
import socket

import pytest

from bus_alt_connection.buscheck import checks
from bus_alt_connection.buscheck.finding import Mark, advise
from bus_alt_connection.buscheck.report import format_report, report
from bus_alt_connection.postgres import hosts

from ...stack.odoo import ROLE
from ..conftest import settings_of
from ..postgres.test_route import AUTO, behind, database, pgbouncer


def said(settings, *databases: str) -> str:
    return format_report(report(settings, checks.run(settings, databases)))


def test_both_ways_lead_to_one_database(servers):
    with database(servers.postgres, "shop", "the shop"):
        text = said(settings_of(servers, **AUTO), "shop")
        where = f"shop at 127.0.0.1:{servers.postgres.port}"
        assert f"✓ database shop: pooled and direct connection lead to {where}" in text
        assert text.splitlines()[-1] == "Notifications arrive."
        servers.pgbouncer.forget("shop")


def test_a_database_that_is_not_there(servers):
    with database(servers.postgres, "shop", "the shop"):
        text = said(settings_of(servers, **AUTO), "nothere", "shop")
        assert "✓ db_host and db_port: " in text and "is a pooler that lends" in text
        assert "Check the name of the database: after -d, or in db_name." in text
        assert "✓ database shop: pooled and direct connection lead to shop" in text
        last = text.splitlines()[-1]
        assert last.startswith("Notifications arrive, but not all is well: updates, backups and")
        servers.pgbouncer.forget("shop")


def test_a_namesake(own_servers):
    with contextlib.ExitStack() as stack:
        for name in ("shop", "live"):
            stack.enter_context(database(own_servers.postgres, name, name))
        pooler = stack.enter_context(pgbouncer(own_servers, live="shop"))
        text = said(behind(own_servers, pooler), "live")
        assert "✓ database live: pooled and direct connection lead to shop at" in text
        assert "• the pooler's live is PostgreSQL's shop. Backups of live are refused" in text


@contextlib.contextmanager
def session_entry(servers):
    """A PgBouncer in transaction mode, whose entry for postgres alone keeps sessions."""
    with database(servers.postgres, "shop", "the shop"), pgbouncer(servers) as pooler:
        server = f"host={servers.postgres.host} port={servers.postgres.port}"
        entry = f"[databases]\npostgres = {server} pool_mode=session\n"
        pooler.edit("[databases]\n", entry)
        yield pooler


def test_the_session_entry_before_the_addon_is_there(own_servers):
    with session_entry(own_servers) as pooler:
        settings = behind(own_servers, pooler)._replace(given={})
        text = said(settings, "shop")
        assert "keeps sessions for postgres, but lends server connections for shop" in text
        assert "this addon is not needed" not in text
        assert "Set imdispatcher_db_host = auto: it was tried just now and leads to" in text


def test_the_session_entry_named_as_the_direct_connection(own_servers):
    with session_entry(own_servers) as pooler:
        text = said(behind(own_servers, pooler, imdispatcher_db_port=pooler.port), "shop")
        assert "a NOTIFY on the pooled connection was heard at" in text
        assert "✗ updates, backups and queue_job: the pooler's database shop is shop at" in text
        assert "which is a pooler in transaction mode" in text
        assert text.splitlines()[-1].startswith("Notifications arrive, but not all is well: ")


def test_two_poolers_behind_one_address(own_servers):
    """Two sessions with two of them share no server connection."""
    with pgbouncer(own_servers, "so_reuseport = 1") as first:
        folder = first.folder.with_name(f"{first.folder.name}-second")
        second = type(first)(folder, own_servers.postgres, first.passwords, "so_reuseport = 1")
        local = second.folder / "local.ini"
        same = f"listen_port = {first.port}"
        local.write_text(local.read_text().replace(f"listen_port = {second.port}", same))
        second.port = first.port
        second.start()
        try:
            text = said(behind(own_servers, first))
        finally:
            second.stop()
        assert "is a pooler that lends server connections" in text


def test_a_name_whose_first_address_is_silent(servers, monkeypatch):
    """The server goes on to the next one, and so does buscheck."""
    original = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        names = ["127.0.0.9", "127.0.0.1"] if host == "pg.example.com" else [host]
        return [answer for name in names for answer in original(name, *args, **kwargs)]

    monkeypatch.setattr(hosts.socket, "getaddrinfo", getaddrinfo)
    with socket.create_server(("127.0.0.9", servers.direct.port)):
        text = said(settings_of(servers, imdispatcher_db_host="pg.example.com"))
    assert "a NOTIFY on the pooled connection was heard at" in text


def test_nothing_is_set_and_auto_would_work(servers):
    settings = settings_of(servers)._replace(given={})
    end = f"postgres at 127.0.0.1:{servers.postgres.port}"
    assert f"Set imdispatcher_db_host = auto: it was tried just now and leads to {end}" in said(
        settings
    )


def test_the_pooler_knows_odoos_database_only(own_servers):
    with pgbouncer(own_servers) as pooler:
        pooler.stop()
        for name in ("pgbouncer.ini", "local.ini"):
            path = pooler.folder / name
            path.write_text(re.sub(r"(?m)^\* =", "shop =", path.read_text()))
        pooler.start()
        shown = said(behind(own_servers, pooler))
        assert "no such database" in shown
        assert "Add this database, or *, to [databases] of the pooler." in shown


def test_the_pooler_logs_in_as_another_role(own_servers):
    own_servers.postgres.create_role("owner", "of-the-owner")
    with contextlib.ExitStack() as stack:
        stack.enter_context(database(own_servers.postgres, "shop", "the shop"))
        pooler = stack.enter_context(pgbouncer(own_servers))
        login = f"* = user=owner password=of-the-owner host={own_servers.postgres.host}"
        pooler.edit(f"* = host={own_servers.postgres.host}", login)
        text = said(behind(own_servers, pooler), "shop")
        roles = f"the pooler logs in as owner, the direct connection as {ROLE}"
        assert f"✗ updates of database shop: {roles}" in text
        assert f"updates of shop may fail: role {ROLE} has no CREATE" not in text
        owner = {"imdispatcher_odoo_user": "owner", "imdispatcher_odoo_password": "of-the-owner"}
        text = said(behind(own_servers, pooler, **owner), "shop")
        assert "logs in as" not in text
        assert "of-the-owner" not in text


@pytest.mark.parametrize(
    "text, advice",
    [
        (
            'no pg_hba.conf entry for host "10.0.0.9", no encryption',
            "imdispatcher_db_sslmode = req",
        ),
        ('no pg_hba.conf entry for host "10.0.0.9", SSL encryption', "Add a line to pg_hba.conf"),
        ("no such database: postgres", "to [databases] of the pooler"),
        ("remaining connection slots are reserved for", "max_connections"),
        ("sorry, too many clients already", "max_connections"),
        ("Tenant or user not found", "imdispatcher_odoo_user"),
        ("Endpoint ID is not specified", "imdispatcher_db_options"),
        ('authentication method requirement "scram-sha-256" failed', "imdispatcher_db_host"),
    ],
)
def test_what_providers_say_has_an_advice(text, advice):
    assert advice in advise(text)


def test_a_mark_is_what_it_was():
    assert [mark.value for mark in Mark] == ["✓", "✗", "•"]
