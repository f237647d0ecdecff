"""The listener at work: what it hears, and what it opens for that.

Without the tests of Odoo this ring would not notice that Odoo's own loops never get an inbox.
"""

import contextlib
import functools
import logging
import select
import time

import psycopg2

from bus_alt_connection.integration.bus_protocol import is_valid_payload
from bus_alt_connection.listener.listener import Failure, Listener

from ...stack.process import wait_until
from ...stack.tcp_proxy import TcpProxy
from ..conftest import CHANNEL, QUICK, Loop, settings_of


def test_a_listen_through_pgbouncer_hears_nothing(servers):
    """What stock Odoo does."""
    with contextlib.closing(
        psycopg2.connect(**servers.pooled._asdict(), dbname="postgres")
    ) as subscriber, contextlib.closing(
        psycopg2.connect(**servers.pooled._asdict(), dbname="postgres")
    ) as publisher:
        subscriber.autocommit = publisher.autocommit = True
        subscriber.cursor().execute("LISTEN imbus")
        for i in range(100):
            publisher.cursor().execute(f"NOTIFY imbus, '{i}'")
        select.select([subscriber], [], [], 2)
        subscriber.poll()
        assert subscriber.notifies == []


def test_100_of_100(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    sent = [site.table.send() for _ in range(100)]
    site.loop.wait_for(sent[-1])
    assert site.loop.shown == sent


def test_one_session_for_all_channels_of_a_process(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    others = [Loop(site.table, "cron_trigger") for _ in range(2)]
    for loop in others:
        assert site.listener.add(loop.inbox)
    wait_until(lambda: site.status.channels == ("cron_trigger", "imbus"), "both channels")
    site.wait_for("listening")
    servers.postgres.execute("NOTIFY cron_trigger, 'a database'")
    for loop in others:
        wait_until(lambda loop=loop: loop.payloads == ["a database"], "both hear it")
    assert len(servers.postgres.listeners()) == 1
    site.delivers()
    for loop in others:
        loop.inbox.close()
    site.delivers()
    assert len(servers.postgres.listeners()) == 1


def test_it_ends_with_its_last_inbox(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    site.loop.inbox.close()
    site.listener.join(5)
    assert not site.listener.is_alive()
    wait_until(lambda: not servers.postgres.listeners(), "its session is closed")
    assert site.listener.add(Loop(site.table).inbox) is False


def test_each_reason_to_connect_again_is_counted(own_servers, listen):
    # PgBouncer gives its connections the listener's name: nobody else's may be left with it
    lost = listen(own_servers)
    lost.wait_for("listening")
    ((backend, _name, _port),) = own_servers.postgres.listeners()
    own_servers.postgres.execute("SELECT pg_terminate_backend(%s)", [backend])
    wait_until(lambda: lost.listener.failure_counts[Failure.LOST] == 1, "lost")
    lost.wait_for("listening")
    assert sum(lost.listener.failure_counts.values()) == 1

    for reason, settings in {
        "not_there": {"imdispatcher_db_port": 1},
        "refused": {"imdispatcher_db_password": "another"},
        "deaf": {"imdispatcher_db_port": own_servers.pooled.port},
    }.items():
        site = listen(own_servers, settings_of(own_servers, **settings))
        counted = site.listener.failure_counts
        wait_until(lambda counted=counted, reason=reason: counted[Failure(reason)] >= 2, reason)
        assert sum(counted.values()) == counted[Failure(reason)]


def test_the_log_says_what_it_reached(servers, listen, caplog):
    caplog.set_level(logging.INFO)
    site = listen(servers)
    site.wait_for("listening")
    ((backend, name, _port),) = servers.postgres.listeners()
    assert name.startswith("odoo-") and name.endswith("-listener")
    line = f"imbus: listening at 127.0.0.1:{servers.direct.port}, PostgreSQL 1"
    assert line in caplog.text
    assert f"database postgres, backend {backend}" in caplog.text


def test_keepalives_are_on(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    ((_pid, _name, port),) = servers.postgres.listeners()
    # /proc/net/tcp, column "tr": 02 is the keepalive timer
    ends = f":{port:04X}", f":{servers.direct.port:04X}"
    with open("/proc/self/net/tcp") as lines:
        rows = [line.split() for line in lines]
    (row,) = (row for row in rows if row[1].endswith(ends[0]) and row[2].endswith(ends[1]))
    assert row[5].startswith("02:")


def test_any_keyword_reaches_libpq(servers, listen):
    settings = settings_of(servers, imdispatcher_db_application_name="mine-listener")
    listen(servers, settings).wait_for("listening")
    ((_pid, name, _port),) = servers.postgres.listeners()
    assert name == "mine-listener"


def test_over_a_socket_folder(servers, listen):
    settings = settings_of(servers, imdispatcher_db_host=servers.postgres.folder)
    site = listen(servers, settings)
    site.wait_for("listening")
    assert site.status.where.startswith(f"{servers.postgres.folder}:")
    site.delivers()


def test_the_first_of_two_hosts_is_down(servers, listen):
    port = f"1,{servers.direct.port}"
    two = {"imdispatcher_db_host": "127.0.0.1,127.0.0.1", "imdispatcher_db_port": port}
    site = listen(servers, settings_of(servers, **two))
    site.wait_for("listening")
    assert f"127.0.0.1:{servers.direct.port}," in site.status.where


def test_a_role_of_its_own(servers, listen):
    servers.postgres.create_role("listener", "other-password", "")
    role = {"imdispatcher_db_user": "listener", "imdispatcher_db_password": "other-password"}
    site = listen(servers, settings_of(servers, **role))
    site.wait_for("listening")
    rows = servers.postgres.execute(
        "SELECT usename, datname FROM pg_stat_activity WHERE application_name LIKE '%-listener'"
    )
    assert rows == [("listener", "postgres")]


def test_payloads_that_odoo_cannot_read_are_kept_from_it(servers, listen, caplog):
    site = listen(servers)
    site.wait_for("listening")
    site.loop.inbox.is_valid = lambda payload: payload.startswith("[")
    for payload in ("", "hello", "5", "x" * 7999):
        servers.postgres.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
    site.delivers()
    assert "hello" not in site.loop.payloads
    assert caplog.text.count("ignored a notification that Odoo cannot read") == 1
    assert site.loop.inbox.rejected_count == 4
    assert site.listener.notification_counts["imbus"] >= 5


def test_payloads_of_a_newer_odoo_are_handed_to_it_and_counted(servers, listen, caplog):
    site = listen(servers)
    site.wait_for("listening")
    site.loop.inbox.is_valid = functools.partial(is_valid_payload, nested_channels=True)
    unknown = ['[[["db", "a"], 5]]', '{"channels": [["db", "a"]]}', '[{"topic": "a"}]']
    for payload in (*unknown, "not JSON"):
        servers.postgres.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])
    wait_until(lambda: site.listener.notification_counts["imbus"] == 4, "they are heard")
    wait_until(lambda: set(unknown) <= set(site.loop.payloads), "Odoo gets them")
    assert site.loop.inbox.rejected_count == 1
    assert "not JSON" not in site.loop.payloads
    assert caplog.text.count("ignored a notification") == 1
    assert site.state == "listening"


def test_a_payload_at_the_limit_of_notify(servers, listen):
    site = listen(servers)
    site.wait_for("listening")
    servers.postgres.execute("SELECT pg_notify(%s, %s)", [CHANNEL, "x" * 7999])
    wait_until(lambda: "x" * 7999 in site.loop.payloads, "it is heard")


def test_idle_listeners_share_their_probes_but_each_sends_one_of_its_own(servers, listen):
    sites = [listen(servers) for _ in range(5)]
    for site in sites:
        site.wait_for("listening")
    with contextlib.closing(servers.postgres.connect()) as connection:
        connection.cursor().execute("LISTEN bus_alt_connection")
        seconds, probes = 10.0, []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            select.select([connection], [], [], 0.2)
            connection.poll()
            probes += connection.notifies
            connection.notifies.clear()
    # 5 of their own in 2 to 3 s; not 5 in 0.8 to 1 s
    assert 5 * seconds / 3 - 5 <= len(probes) <= 5 * seconds / 2 + seconds / 0.8
    assert all(site.state == "listening" for site in sites)


def test_a_deaf_cron_listener_sends_no_probes_and_postgresql_shows_it(servers, table, caplog):
    """Nobody looks sooner because a probe was taken: a cron worker looks each minute anyway."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name LIKE '%-listener' AND query = 'LISTEN cron_trigger'"
    )
    relay = TcpProxy((servers.postgres.host, servers.postgres.port))
    loop = Loop(table, "cron_trigger")
    with contextlib.closing(relay), contextlib.closing(loop.inbox), contextlib.closing(
        servers.postgres.connect()
    ) as connection:
        settings = settings_of(servers, imdispatcher_db_port=relay.port)
        listener = Listener(settings, loop.inbox, QUICK)
        listener.start()
        wait_until(lambda: listener.status.state.value == "listening", "it listens")
        assert len(servers.postgres.execute(query)) == 1
        relay.close()
        wait_until(lambda: listener.status.state.value == "deaf", "it is deaf")
        wait_until(lambda: not servers.postgres.execute(query), "PostgreSQL shows it")
        connection.cursor().execute("LISTEN bus_alt_connection")
        # four times as long as the bus waits before its next probe
        time.sleep(4 * QUICK.probe_retry[1])
        connection.poll()
        assert connection.notifies == []
        assert listener.status.state.value == "deaf"
        assert "ERROR" in caplog.text and "cron_trigger: deaf: " in caplog.text
        relay.open()
        wait_until(lambda: listener.status.state.value == "listening", "it listens again")
        wait_until(lambda: servers.postgres.execute(query), "PostgreSQL shows that, too")
