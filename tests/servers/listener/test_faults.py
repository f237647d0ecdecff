"""PostgreSQL, the pooler and the network fail: nothing is lost and nobody stays deaf.

The times are cut to a tenth where the time itself is not the point; ``./run faults`` shows the
real ones, with Odoo.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import secrets
import signal
import threading
import time

import psycopg2
import pytest
from psycopg2.extensions import libpq_version

from bus_alt_connection.config.timing import Timing
from bus_alt_connection.integration import bus_protocol
from bus_alt_connection.integration.bus_protocol import covering_channels, in_batches
from bus_alt_connection.listener import catch_up

from ...stack.pgbouncer import PgBouncer
from ...stack.postgres import Postgres
from ...stack.process import wait_until
from ...stack.tcp_proxy import TcpProxy
from ..conftest import QUICK, settings_of


@contextlib.contextmanager
def sending(table, pause: float = 0.02):
    """Send messages until the end."""
    stop = threading.Event()

    def send():
        while not stop.wait(pause):
            table.send()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def all_shown(site, timeout: float = 10.0):
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: set(site.table.sent) <= set(site.loop.shown), "all are shown", timeout)
    assert not set(site.table.sent) - set(site.loop.shown)
    assert len(site.loop.shown) == len(set(site.loop.shown)), "none twice"


def kill(postgres):
    for pid, *_others in postgres.listeners():
        postgres.execute("SELECT pg_terminate_backend(%s)", [pid])


@contextlib.contextmanager
def relayed(servers):
    """A relay on the direct way; yields it and the settings."""
    relay = TcpProxy((servers.postgres.host, servers.postgres.port))
    try:
        yield relay, settings_of(servers, imdispatcher_db_port=relay.port)
    finally:
        relay.close()


def test_one_message_after_a_kill_and_nothing_else(servers, listen):
    site = listen(servers, times=Timing())
    site.wait_for("listening")
    kill(servers.postgres)
    assert site.delivers(5) < 2


def test_100_kills_under_load(servers, listen):
    times = QUICK._replace(initial_delay=0.05, max_delay_early=0.05, max_delay=0.05)
    site = listen(servers, times=times)
    site.wait_for("listening")
    files = len(os.listdir("/proc/self/fd"))
    with sending(site.table):
        for _time in range(100):
            ((pid, *_),) = wait_until(servers.postgres.listeners, "a listener", interval=0.01)
            servers.postgres.execute("SELECT pg_terminate_backend(%s)", [pid])
            wait_until(
                lambda pid=pid: [row[0] for row in servers.postgres.listeners()] not in ([], [pid]),
                "another one",
                interval=0.01,
            )
    all_shown(site)
    assert len(servers.postgres.listeners()) == 1
    # a leak would be a file a kill; other tests' threads may hold a few
    wait_until(lambda: len(os.listdir("/proc/self/fd")) < files + 50, "files are closed again")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_postgresql_stops_and_comes_back(own_servers, listen, signum):
    site = listen(own_servers)
    site.wait_for("listening")
    with sending(site.table):
        time.sleep(0.3)
        own_servers.postgres.stop(signum)
        site.wait_for("deaf")
        own_servers.postgres.start()
        site.wait_for("listening")
    all_shown(site)


def test_nobody_is_there_at_the_start(servers, listen):
    with relayed(servers) as (relay, settings):
        relay.close()
        site = listen(servers, settings)
        site.wait_for("deaf")
        assert "refused" in site.status.reason
        # the bus looks by itself while nothing is heard
        assert site.delivers(10)
        relay.open()
        site.wait_for("listening")
        site.delivers()


def test_connections_are_reset(servers, listen):
    with relayed(servers) as (relay, settings):
        site = listen(servers, settings)
        site.wait_for("listening")
        with sending(site.table):
            relay.reset()
            site.wait_for("deaf")
            site.wait_for("listening")
        all_shown(site)


@pytest.mark.parametrize("what", ["forget", "hang"])
def test_a_firewall_drops_the_packets(servers, listen, what):
    """``forget``: those of the connections that are open; ``hang``: of new ones too."""
    with relayed(servers) as (relay, settings):
        listener = {**settings.listener, "connect_timeout": "1"}
        site = listen(servers, settings._replace(listener=listener))
        site.wait_for("listening")
        with sending(site.table):
            getattr(relay, what)()
            site.wait_for("deaf")
            if what == "hang":
                wait_until(lambda: "no answer within 1 s" in site.status.reason, "no answer")
                site.delivers()
                relay.resume()
            site.wait_for("listening")
        all_shown(site)


def test_a_backend_that_hangs(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    ((pid, *_),) = servers.postgres.listeners()
    os.kill(pid, signal.SIGSTOP)
    try:
        with sending(site.table):
            site.wait_for("deaf")
            assert "was not heard at 127.0.0.1:" in site.status.reason
            site.wait_for("listening")
        all_shown(site)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_pgbouncer_that_is_away_tears_nothing_down(own_servers, listen, caplog):
    site = listen(own_servers)
    site.wait_for("listening")
    before = own_servers.postgres.listeners()
    own_servers.pgbouncer.stop()
    site.wait_for("unknown")
    # what it hears meanwhile, it passes on
    own_servers.postgres.execute("NOTIFY imbus, '[\"meanwhile\"]'")
    wait_until(lambda: '["meanwhile"]' in site.loop.payloads, "it is heard")
    time.sleep(2)
    own_servers.pgbouncer.start()
    site.wait_for("listening")
    site.delivers()
    assert own_servers.postgres.listeners() == before
    assert "deaf" not in caplog.text
    assert caplog.text.count("unknown whether notifications arrive") == 1


def test_a_pgbouncer_that_is_away_a_second_time(own_servers, listen, caplog):
    """It does not make one long trouble of two short ones."""
    caplog.set_level(logging.INFO)
    times = QUICK._replace(early=1.0, log_interval=0.5)
    site = listen(own_servers, times=times)
    for _time in range(2):
        site.wait_for("listening")
        own_servers.pgbouncer.stop()
        site.wait_for("unknown")
        time.sleep(times.early)
        own_servers.pgbouncer.start()
    site.wait_for("listening")
    kill(own_servers.postgres)
    # at once, as after a first loss
    wait_until(lambda: "back after" in caplog.text, "it is back", 1)
    assert caplog.text.count("unknown whether notifications arrive") == 2


WEIRD = {("db", object()): {1}, ("db", "\ud800"): {2}, ("db", b"bytes"): {3}, ("db", "a"): {4}}


def raising(error):
    def everything(told):
        raise error

    return everything


@pytest.mark.parametrize(
    "everything, line",
    [
        (lambda told: in_batches(covering_channels(WEIRD)), "JSON cannot write the subscription"),
        (raising(RuntimeError("dictionary changed size")), "what was missed is not looked for"),
        (raising(psycopg2.OperationalError("cannot list the databases")), ""),
        (lambda told: None, "what was missed is not looked for"),
    ],
    ids=["channels that JSON cannot write", "an error", "an error of the database", "nonsense"],
)
def test_catching_up_ends_no_session(servers, listen, caplog, everything, line):
    caplog.set_level(logging.INFO)
    site = listen(servers)
    site.wait_for("listening")
    bus_protocol._logged_errors.clear()
    catch_up._logged_errors.clear()
    site.loop.inbox.catch_up_payloads = everything
    kill(servers.postgres)
    wait_until(lambda: "back after" in caplog.text, "it is back")
    ((backend, *_others),) = servers.postgres.listeners()
    # beyond the next probes, each of which may catch up
    time.sleep(2)
    assert [row[0] for row in servers.postgres.listeners()] == [backend]
    assert site.state == "listening"
    assert line in caplog.text
    assert "unexpected error" not in caplog.text
    site.delivers()


def test_who_can_be_told_is_told_though_others_cannot(servers, listen):
    """Else a message that came meanwhile is not shown before the next one."""
    with relayed(servers) as (relay, settings):
        site = listen(servers, settings)
        site.loop.inbox.catch_up_payloads = lambda told: in_batches(covering_channels(WEIRD))
        site.wait_for("listening")
        relay.close()
        site.wait_for("deaf")
        message = site.table.send()
        relay.open()
        site.loop.wait_for(message)
        site.wait_for("listening")


@pytest.fixture
def standby(own_servers):
    server = Postgres(own_servers.folder / "standby", primary=own_servers.postgres).start()
    yield server
    server.stop()


def both(servers, standby, standby_first: bool = False) -> dict:
    ports = [servers.postgres.port, standby.port]
    ports = ports[::-1] if standby_first else ports
    return {
        "imdispatcher_db_host": "127.0.0.1,127.0.0.1",
        "imdispatcher_db_port": ",".join(map(str, ports)),
    }


def test_of_several_hosts_the_primary_is_taken(own_servers, standby, listen):
    site = listen(own_servers, settings_of(own_servers, imdispatcher_db_port=standby.port))
    site.wait_for("deaf")
    assert f"127.0.0.1:{standby.port} is a standby, which cannot LISTEN" in site.status.reason
    site = listen(own_servers, settings_of(own_servers, **both(own_servers, standby, True)))
    site.wait_for("listening")
    assert f"127.0.0.1:{own_servers.postgres.port}," in site.status.where


def fail_over(servers, standby):
    def promoted():
        if servers.postgres.process.running():
            (lsn,) = servers.postgres.execute("SELECT pg_current_wal_lsn()::text")[0]
            caught_up = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_until(lambda: standby.execute(caught_up, [lsn])[0][0], "caught up")
        standby.execute("SELECT pg_promote()")

    servers.pgbouncer.move_to(standby, promoted)


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "old primary stays up"])
def test_a_standby_is_promoted(own_servers, standby, listen, crash):
    # else a crash loses what the standby has not got yet
    own_servers.postgres.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    own_servers.postgres.execute("SELECT pg_reload_conf()")
    site = listen(own_servers, settings_of(own_servers, **both(own_servers, standby)))
    site.wait_for("listening")
    with sending(site.table):
        time.sleep(0.3)
        if crash:
            own_servers.postgres.stop(signal.SIGQUIT)
        fail_over(own_servers, standby)
        wait_until(
            lambda: site.state == "listening" and f":{standby.port}," in site.status.where,
            "it listens at the new primary",
        )
        time.sleep(0.3)
    all_shown(site)


def test_the_password_changes(servers, listen):
    servers.postgres.create_role("changing", "first", "")
    role = {"imdispatcher_db_user": "changing", "imdispatcher_db_password": "first"}
    site = listen(servers, settings_of(servers, **role))
    site.wait_for("listening")
    servers.postgres.create_role("changing", "second", "")
    kill(servers.postgres)
    wait_until(lambda: "password authentication failed" in site.status.reason, "refused")
    servers.postgres.create_role("changing", "first", "")
    site.wait_for("listening")
    site.delivers()


@pytest.fixture
def other_server(servers):
    """A second server, which has the roles of the first."""
    server = Postgres(servers.folder / f"other-{secrets.token_hex(4)}").start()
    server.create_role(servers.direct.user, servers.password)
    yield server
    server.remove()


def test_another_server_is_found_out(servers, other_server, listen):
    site = listen(servers, settings_of(servers, imdispatcher_db_port=other_server.port))
    site.wait_for("deaf")
    assert "db_host leads to another server (it started" in site.status.reason
    # the bus looks by itself
    site.delivers()


@pytest.mark.parametrize("old_first", [True, False], ids=["old, new", "new, old"])
def test_an_old_primary_that_stays_is_left_at_once(own_servers, other_server, listen, old_first):
    """Both take whoever comes; going back to the old one would cost another unheard probe."""
    hosts = both(own_servers, other_server, not old_first)
    other_server.stop()
    site = listen(own_servers, settings_of(own_servers, **hosts))
    site.wait_for("listening")
    other_server.start()
    other_server.create_role(own_servers.direct.user, own_servers.password)
    own_servers.pgbouncer.move_to(other_server, lambda: None)
    site.wait_for("deaf")
    site.wait_for("listening", QUICK.probe_timeout)
    assert f":{other_server.port}," in site.status.where


def test_another_database_is_found_out(servers, listen):
    servers.postgres.execute("CREATE DATABASE elsewhere")
    pooler = PgBouncer(
        servers.folder / "elsewhere",
        servers.postgres,
        servers.pgbouncer.passwords,
        aliases={"postgres": "elsewhere"},
    ).start()
    try:
        site = listen(servers, settings_of(servers, own={"port": pooler.port}))
        site.wait_for("deaf")
        assert "db_host leads to database elsewhere, LISTEN is in postgres" in site.status.reason
    finally:
        pooler.stop()


def test_a_pooler_where_postgresql_should_be(servers, listen):
    site = listen(servers, settings_of(servers, imdispatcher_db_port=servers.pooled.port))
    site.wait_for("deaf")
    assert "is a pooler, not PostgreSQL" in site.status.reason
    site.loop.inbox.close()
    site.listener.join(5)
    # its server connections have taken the listener's application_name
    servers.pgbouncer.forget("postgres")


@pytest.mark.parametrize(
    "times, limit",
    [(QUICK, 10), pytest.param(Timing(), 90, marks=pytest.mark.slow)],
    ids=["a tenth of the times", "real times"],
)
def test_others_are_heard_but_its_own_notifies_go_elsewhere(
    own_servers, other_server, listen, times, limit
):
    """The pooler is moved to another server; other Odoos still use the first one."""
    site = listen(own_servers, times=times)
    site.wait_for("listening")
    own_servers.pgbouncer.move_to(other_server, lambda: None)
    other_server.create_role(own_servers.direct.user, own_servers.password)
    begin = time.monotonic()
    while site.state != "deaf" and time.monotonic() < begin + limit:
        own_servers.postgres.execute("NOTIFY imbus, '[\"somebody else\"]'")
        own_servers.postgres.execute("NOTIFY bus_alt_connection, 'the probe of somebody else'")
        time.sleep(0.1)
    assert site.state == "deaf"
    print(f"found out after {time.monotonic() - begin:.1f} s")
    assert "db_host leads to another server" in site.status.reason


def test_stopping_does_not_wait_for_a_server_that_hangs(servers, listen):
    with relayed(servers) as (relay, settings):
        relay.hang()
        site = listen(servers, settings)
        time.sleep(0.5)
        begin = time.monotonic()
        site.loop.inbox.close()
        site.listener.join(5)
        assert not site.listener.is_alive()
        assert time.monotonic() - begin < 2


def test_an_error_of_ours_ends_nothing(servers, listen, caplog):
    site = listen(servers)
    site.wait_for("listening")
    site.loop.inbox.is_valid = lambda payload: 1 / 0
    servers.postgres.execute("NOTIFY imbus, '[]'")
    site.wait_for("deaf")
    site.loop.inbox.is_valid = lambda payload: True
    site.wait_for("listening")
    site.delivers()
    assert caplog.text.count("unexpected error, trying again") == 1


# --- this process itself is short of something ---------------------------------------------


@contextlib.contextmanager
def no_more_files():
    """Nothing can be opened in this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_file_descriptors_run_out_while_a_session_is_lost(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    ((backend, *_others),) = servers.postgres.listeners()
    with no_more_files():
        os.kill(backend, signal.SIGTERM)
        site.wait_for("deaf")
        time.sleep(3)
    site.wait_for("listening")
    site.delivers()


def test_file_descriptors_run_out_while_it_listens(servers, listen):
    """A probe that cannot be sent must not be the last one."""
    site = listen(servers)
    site.wait_for("listening")
    with no_more_files():
        time.sleep(4)
    site.wait_for("listening")
    ((backend, *_others),) = servers.postgres.listeners()
    os.kill(backend, signal.SIGSTOP)
    try:
        site.wait_for("deaf")
    finally:
        os.kill(backend, signal.SIGCONT)


# --- servers that allow little -------------------------------------------------------------


def test_a_server_that_hides_what_is_not_needed(own_servers, listen):
    for hidden in (
        "EXECUTE ON FUNCTION pg_postmaster_start_time()",
        "EXECUTE ON FUNCTION pg_notification_queue_usage()",
        "SELECT ON pg_stat_ssl",
        "SELECT ON pg_settings",
    ):
        own_servers.postgres.execute(f"REVOKE {hidden} FROM PUBLIC")
    site = listen(own_servers)
    site.wait_for("listening")
    site.delivers()


@pytest.mark.skipif(libpq_version() < 140000, reason="its libpq can only ask for read-write")
def test_a_listening_role_that_may_not_write_and_several_hosts(own_servers, listen):
    own_servers.postgres.create_role("reader", "password-of-reader", "")
    own_servers.postgres.execute("ALTER ROLE reader SET default_transaction_read_only = on")
    port = own_servers.direct.port
    options = {
        "imdispatcher_db_host": "127.0.0.1,127.0.0.1",
        "imdispatcher_db_port": f"{port},{port}",
        "imdispatcher_db_user": "reader",
        "imdispatcher_db_password": "password-of-reader",
    }
    site = listen(own_servers, settings_of(own_servers, **options))
    site.wait_for("listening")


def test_a_service_file_with_several_hosts(own_servers, standby, listen, monkeypatch):
    ports = f"{standby.port},{own_servers.postgres.port}"
    path = own_servers.folder / "services"
    role = own_servers.direct
    path.write_text(
        f"[cluster]\nhost=127.0.0.1,127.0.0.1\nport={ports}\n"
        f"user={role.user}\npassword={role.password}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    none = dict.fromkeys(("imdispatcher_db_host", "imdispatcher_db_port"), "")
    settings = settings_of(own_servers, **none, imdispatcher_db_service="cluster")
    site = listen(own_servers, settings)
    site.wait_for("listening")
