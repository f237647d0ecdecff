"""The direct connection is the other end of the pooled one, and proven; or it is not used."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess

import psycopg2
import pytest

from bus_alt_connection.listener.inbox import Inbox
from bus_alt_connection.listener.listener import Listener
from bus_alt_connection.listener.status import State
from bus_alt_connection.postgres.proof import NotProven, prove

from ...stack.deployment import Servers
from ...stack.odoo import ROLE
from ...stack.pgbouncer import PgBouncer
from ...stack.postgres import BIN, Postgres, server_environ
from ...stack.process import give_to_servers, started, wait_until
from ..conftest import QUICK, settings_of, tools_of

AUTO = {"imdispatcher_db_host": "auto", "imdispatcher_db_port": ""}


@contextlib.contextmanager
def pgbouncer(servers: Servers, more: str = "", **aliases):
    """Another PgBouncer, which knows databases by other names."""
    folder = servers.folder / f"pgbouncer-{secrets.token_hex(4)}"
    passwords = {"ODOO_DB_PASSWORD": servers.password}
    passwords["PGBOUNCER_ADMIN_PASSWORD"] = secrets.token_hex(16)
    pooler = PgBouncer(folder, servers.postgres, passwords, more, aliases)
    try:
        yield pooler.start()
    finally:
        pooler.stop()


@contextlib.contextmanager
def other_server(servers: Servers):
    """Another PostgreSQL, which knows Odoo's role as well."""
    with started(Postgres(servers.folder / "other")) as other:
        other.create_role(ROLE, servers.password)
        yield other


@contextlib.contextmanager
def database(postgres: Postgres, name: str, content: str):
    """A database with one row that tells it from others."""
    postgres.execute(f'CREATE DATABASE "{name}" OWNER "{ROLE}"')
    try:
        postgres.execute(
            f"CREATE TABLE which AS SELECT '{content}'::text AS content;"
            f' ALTER TABLE which OWNER TO "{ROLE}"',
            dbname=name,
        )
        yield
    finally:
        postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def behind(servers: Servers, pooler, **options):
    """Settings of an Odoo behind this pooler."""
    own = {"host": pooler.host, "port": pooler.port}
    return settings_of(servers, own=own, **options)


def found(settings, name: str) -> dict:
    return prove(settings.direct, settings.pooled, name).parameters


def content(parameters: dict) -> str:
    with contextlib.closing(psycopg2.connect(**parameters)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT content FROM which")
        return cursor.fetchone()[0]


def dump(settings, name: str) -> str:
    """Back up a database as Odoo does: pg_dump is given its name."""
    tools = tools_of(settings)

    def dump_db(database):
        environ = tools.environ(os.environ.copy)
        environ["LD_LIBRARY_PATH"] = server_environ()["LD_LIBRARY_PATH"]
        command = [BIN / "pg_dump", "--no-owner", database]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True)

    return tools.dump(dump_db, name).stdout


@pytest.mark.parametrize("options", [{}, AUTO], ids=["named", "auto"])
@pytest.mark.parametrize("namesake", [True, False], ids=["with a namesake", "without"])
def test_an_alias_leads_to_the_real_database(own_servers, options, namesake):
    with contextlib.ExitStack() as stack:
        stack.enter_context(database(own_servers.postgres, "shop", "the real one"))
        if namesake:
            stack.enter_context(database(own_servers.postgres, "live", "an empty one"))
        pooler = stack.enter_context(pgbouncer(own_servers, live="shop"))
        settings = behind(own_servers, pooler, **options)
        assert content(found(settings, "live")) == "the real one"
        assert "the real one" in dump(settings, "shop")
        with pytest.raises(NotProven, match=r"the pooler's database live is shop at 127\.0\.0\.1:"):
            dump(settings, "live")


@pytest.mark.parametrize("options", [{}, AUTO], ids=["named", "auto"])
def test_a_database_that_was_moved_to_another_server(own_servers, options):
    """Its old copy is still on the first one, under the same name."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(other_server(own_servers))
        stack.enter_context(database(own_servers.postgres, "tenant", "the old copy"))
        stack.enter_context(database(other, "tenant", "the moved one"))
        pooler = stack.enter_context(pgbouncer(own_servers, tenant=(other, "tenant")))
        settings = behind(own_servers, pooler, **options)
        if options:
            assert content(found(settings, "tenant")) == "the moved one"
            assert "the moved one" in dump(settings, "tenant")
        else:
            both = (
                f"tenant at 127.0.0.1:{other.port}.*tenant at 127.0.0.1:{own_servers.postgres.port}"
            )
            with pytest.raises(NotProven, match=both):
                found(settings, "tenant")
            with pytest.raises(NotProven, match=both):
                dump(settings, "tenant")


def test_a_pooler_that_keeps_sessions_of_one_database_alone(own_servers):
    """The session entry for ``postgres``, named as the direct connection."""
    with database(own_servers.postgres, "shop", "the shop"), pgbouncer(own_servers) as plain:
        server = f"host={own_servers.postgres.host} port={own_servers.postgres.port}"
        entry = f"postgres = {server} pool_mode=session\n"
        plain.edit("[databases]\n", f"[databases]\n{entry}")
        same = {"imdispatcher_db_port": plain.port}
        settings = behind(own_servers, plain, **same)
        assert found(settings, "postgres")["port"] == str(plain.port)
        with pytest.raises(NotProven, match="which is a pooler in transaction mode"):
            found(settings, "shop")


def test_auto_is_the_server_behind_the_pooler(servers):
    parameters = found(settings_of(servers, **AUTO), "postgres")
    assert (parameters["host"], parameters["port"]) == ("127.0.0.1", str(servers.postgres.port))


def test_auto_behind_nothing_is_db_host_itself(servers):
    settings = settings_of(servers, own=servers.direct._asdict(), **AUTO)
    assert found(settings, "postgres")["port"] == str(servers.direct.port)


def test_auto_with_a_port_where_no_server_is(servers):
    """db_host itself is tried then, which is a pooler; the first reason tells more."""
    settings = settings_of(servers, **{**AUTO, "imdispatcher_db_port": 1})
    end = f"postgres at 127.0.0.1:{servers.postgres.port}, and there the direct connection fails"
    with pytest.raises(psycopg2.OperationalError, match=f"{end}.*Connection refused"):
        found(settings, "postgres")


def test_auto_through_a_pooler_in_session_mode_that_alone_can_be_reached(own_servers):
    with pgbouncer(own_servers, "pool_mode = session") as pooler:
        settings = behind(own_servers, pooler, **{**AUTO, "imdispatcher_db_port": 1})
        assert found(settings, "postgres")["port"] == str(pooler.port)


def test_the_listener_follows_a_pooler_that_moves(own_servers, listen):
    """Nothing is written down, so nothing is forgotten."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(other_server(own_servers))
        site = listen(own_servers, settings_of(own_servers, **AUTO))
        site.wait_for("listening")
        assert f":{own_servers.postgres.port}," in site.status.where
        own_servers.pgbouncer.move_to(other, lambda: None)
        wait_until(lambda: f":{other.port}," in site.status.where, "it is at the other one", 30)
        site.wait_for("listening")


def test_the_last_route_is_used_while_the_pooler_is_away(own_servers, listen):
    site = listen(own_servers, settings_of(own_servers, **AUTO))
    site.wait_for("listening")
    ((backend, _name, _port),) = own_servers.postgres.listeners()
    own_servers.pgbouncer.stop()
    own_servers.postgres.execute("SELECT pg_terminate_backend(%s)", [backend])

    def others() -> list:
        return [pid for pid, _name, _port in own_servers.postgres.listeners() if pid != backend]

    wait_until(others, "it listens again")
    assert site.state != "listening", "what the pooler does is not known"
    own_servers.pgbouncer.start()
    site.wait_for("listening")


def test_the_pooler_is_away_at_the_start(own_servers):
    own_servers.pgbouncer.stop()
    with contextlib.closing(Inbox("imbus")) as inbox:
        listener = Listener(settings_of(own_servers, **AUTO), inbox, QUICK)
        listener.start()
        status = listener.status
        wait_until(lambda: status.state is State.DEAF, "it is deaf")
        assert "cannot be asked (imdispatcher_db_host = auto)" in status.reason
        own_servers.pgbouncer.start()
        wait_until(lambda: status.state is State.LISTENING, "it listens", 20)


def test_an_old_server_that_still_runs(own_servers):
    """PostgreSQL has moved, the pooler follows, imdispatcher_db_host was forgotten."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(other_server(own_servers))
        for server, row in ((own_servers.postgres, "old"), (other, "new")):
            stack.enter_context(database(server, "shop", row))
        named = settings_of(own_servers)
        own_servers.pgbouncer.move_to(other, lambda: None)
        with pytest.raises(NotProven, match=f"127.0.0.1:{other.port}"):
            found(named, "shop")
        assert content(found(settings_of(own_servers, **AUTO), "shop")) == "new"


def test_a_standby_behind_the_pooler(own_servers):
    standby = Postgres(own_servers.folder / "standby", primary=own_servers.postgres)
    with contextlib.ExitStack() as stack:
        standby.start()
        stack.callback(standby.stop)
        own_servers.pgbouncer.move_to(standby, lambda: None)
        with pytest.raises(NotProven, match="leads to a standby"):
            found(settings_of(own_servers, **AUTO), "postgres")


def test_another_search_path_is_noticed(own_servers, monkeypatch):
    """This PgBouncer ignores what a client puts into its options."""
    with pgbouncer(own_servers, "ignore_startup_parameters = extra_float_digits,options") as pooler:
        settings = behind(own_servers, pooler)
        prove(settings.direct, settings.pooled, "postgres").check_update()
        monkeypatch.setenv("PGOPTIONS", "-c search_path=elsewhere")
        proven = prove(settings.direct, settings.pooled, "postgres")
    with pytest.raises(
        NotProven, match=r"search_path is .* on the pooled .*'elsewhere' on the dir"
    ):
        proven.check_update()


def test_a_service_file_with_a_role_of_its_own(servers, monkeypatch, tmp_path):
    """pg_dump is Odoo's role all the same."""
    servers.postgres.create_role("listens_only", "another", "")
    path = tmp_path / "services"
    path.write_text(
        f"[direct]\nhost=127.0.0.1\nport={servers.direct.port}\nuser=listens_only\npassword=another\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    place = dict.fromkeys(("imdispatcher_db_host", "imdispatcher_db_port"), "")
    settings = settings_of(servers, imdispatcher_db_service="direct", **place)
    with database(servers.postgres, "shop", "the shop"):
        assert "the shop" in dump(settings, "shop")
        servers.pgbouncer.forget("shop")


def test_a_service_in_odoos_environment(servers, monkeypatch, tmp_path):
    """It names the pooler, and beats PGHOST."""
    path = tmp_path / "services"
    path.write_text(f"[pooler]\nhost=127.0.0.1\nport={servers.pooled.port}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    monkeypatch.setenv("PGSERVICE", "pooler")
    settings = settings_of(servers)
    tools = tools_of(settings)
    environ = tools.environ(os.environ.copy)
    assert "PGSERVICE" not in environ
    assert environ["PGPORT"] == str(servers.direct.port)


def test_a_tool_of_another_addon_gets_no_namesake(own_servers):
    """It does not say which database it is for."""
    with contextlib.ExitStack() as stack:
        for name in ("shop", "live"):
            stack.enter_context(database(own_servers.postgres, name, name))
        pooler = stack.enter_context(pgbouncer(own_servers, live="shop"))
        settings = behind(own_servers, pooler, db_name="live")
        tools = tools_of(settings)
        assert tools.environ(lambda: {"PGPORT": "6432"}) == {"PGPORT": "6432"}


def test_a_role_with_a_timezone_of_its_own(servers, listen):
    """One instant has two texts then."""
    servers.postgres.create_role("elsewhere", "another", "")
    servers.postgres.execute("ALTER ROLE elsewhere SET timezone = 'Asia/Tokyo'")
    servers.postgres.execute("ALTER ROLE elsewhere SET datestyle = 'German'")
    role = {"imdispatcher_db_user": "elsewhere", "imdispatcher_db_password": "another"}
    site = listen(servers, settings_of(servers, **role))
    site.wait_for("listening")
    session, prober = site.listener._session, site.listener._prober
    # the probe may arrive before the answer to it
    notified = wait_until(lambda: prober._notified_server, "the probe's answer is there")
    assert session.server.start_time == notified.start_time
    assert "it does not answer any more" in str(session.explain_missed_probe(notified, 9))
    # a role that may not read when the server started
    session.server = session.server._replace(start_time="")
    assert "it does not answer any more" in str(session.explain_missed_probe(notified, 9))


def test_a_proof_leaves_nothing_behind(servers):
    settings = settings_of(servers)
    for _time in range(3):
        prove(settings.direct, settings.pooled, "postgres")
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%-loading'"
    wait_until(lambda: servers.postgres.execute(query) == [(0,)], "its sessions are closed")


def test_auto_where_the_pooler_is_reached_through_a_socket(own_servers):
    """Pooler, PostgreSQL and Odoo are on one machine."""
    folder = own_servers.folder / "sockets"
    folder.mkdir()
    give_to_servers(folder)
    with pgbouncer(own_servers, f"unix_socket_dir = {folder}") as pooler:
        settings = settings_of(own_servers, own={"host": folder, "port": pooler.port}, **AUTO)
        parameters = found(settings, "postgres")
        assert (parameters["host"], parameters["port"]) == (
            "127.0.0.1",
            str(own_servers.postgres.port),
        )


def test_a_restore_is_refused_before_anything_is_made(own_servers):
    """The pooler has moved; the server that is named still runs."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(other_server(own_servers))
        settings = settings_of(own_servers)
        own_servers.pgbouncer.move_to(other, lambda: None)
        tools = tools_of(settings)
        made: list = []
        with pytest.raises(NotProven, match=f"127.0.0.1:{other.port}"):
            tools.restore(lambda *names: made.append(names), "new", "a file")
        assert not made


def test_a_restore_by_a_role_that_may_not_enter_the_system_database(own_servers):
    own_servers.postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    own_servers.postgres.create_role("pooler", "of-the-pooler")
    own_servers.postgres.execute("GRANT CONNECT ON DATABASE postgres TO pooler")
    with database(own_servers.postgres, "shop", "x"), pgbouncer(own_servers) as pooler:
        server = f"host={own_servers.postgres.host} port={own_servers.postgres.port}"
        entry = f"[databases]\npostgres = {server} user=pooler password=of-the-pooler\n"
        pooler.edit("[databases]\n", entry)
        settings = behind(own_servers, pooler)
        tools = tools_of(settings)
        environ = tools.restore(lambda *_names: tools.environ(os.environ.copy), "shop", "a file")
        assert environ["PGPORT"] == str(own_servers.postgres.port)


def test_a_proof_that_fails_leaves_no_listen_on_a_shared_connection(own_servers):
    """A NOTIFY would reach whoever has that connection next."""
    settings = settings_of(own_servers, imdispatcher_db_port=own_servers.pooled.port)
    with pytest.raises(NotProven, match="a pooler in transaction mode"):
        found(settings, "postgres")
    with contextlib.closing(
        psycopg2.connect(**own_servers.pooled._asdict(), dbname="postgres")
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT * FROM pg_listening_channels()")
        assert cursor.fetchall() == []


def test_an_update_by_another_role_than_the_poolers(own_servers):
    """Its tables would not be the pooler's to read."""
    own_servers.postgres.create_role("owner", "of-the-owner")
    with database(own_servers.postgres, "shop", "x"), pgbouncer(own_servers) as pooler:
        login = f"* = user=owner password=of-the-owner host={own_servers.postgres.host}"
        pooler.edit(f"* = host={own_servers.postgres.host}", login)
        settings = behind(own_servers, pooler, **AUTO)
        proven = prove(settings.direct, settings.pooled, "shop")
        with pytest.raises(
            NotProven, match="the pooler logs in as owner, the direct connection as"
        ):
            proven.check_update()
        owner = {"imdispatcher_odoo_user": "owner", "imdispatcher_odoo_password": "of-the-owner"}
        settings = behind(own_servers, pooler, **AUTO, **owner)
        prove(settings.direct, settings.pooled, "shop").check_update()


def test_a_tool_of_another_addon_where_databases_are_on_two_servers(own_servers):
    """It does not say for which one it is."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(other_server(own_servers))
        stack.enter_context(database(own_servers.postgres, "shop", "x"))
        stack.enter_context(database(other, "tenant", "x"))
        pooler = stack.enter_context(pgbouncer(own_servers, tenant=(other, "tenant")))
        tools = tools_of(behind(own_servers, pooler, **AUTO), "shop", "tenant")
        assert tools.environ(lambda: {"PGPORT": "6432"}) == {"PGPORT": "6432"}
        one = tools_of(behind(own_servers, pooler, **AUTO), "tenant")
        assert one.environ(dict)["PGPORT"] == str(other.port)


def test_an_alias_is_forgotten_once_it_is_none_any_more(own_servers):
    with contextlib.ExitStack() as stack:
        for name in ("shop", "live"):
            stack.enter_context(database(own_servers.postgres, name, name))
        pooler = stack.enter_context(pgbouncer(own_servers, live="shop"))
        tools = tools_of(behind(own_servers, pooler), "live")
        assert tools.environ(dict) == {}
        pooler.edit("dbname=shop", "dbname=live")
        pooler.admin("RECONNECT")
        assert tools.environ(dict)["PGPORT"] == str(own_servers.postgres.port)


def test_the_pooler_ends_an_idle_session_while_a_host_is_silent(own_servers):
    with pgbouncer(own_servers, "client_idle_timeout = 1") as pooler, socket.create_server(
        ("127.0.0.1", 0)
    ) as silent:
        ports = f"{silent.getsockname()[1]},{own_servers.postgres.port}"
        hosts = {"imdispatcher_db_host": "127.0.0.1,127.0.0.1", "imdispatcher_db_port": ports}
        settings = behind(own_servers, pooler, **hosts, imdispatcher_db_connect_timeout=3)
        assert found(settings, "postgres")["port"] == str(own_servers.postgres.port)
