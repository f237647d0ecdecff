"""Odoo shows what was sent while its listener was lost; ``./run faults`` tries many more losses."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from ..stack import series
from ..stack.client import BusClient
from ..stack.odoo import ROLE
from ..stack.process import wait_until
from .conftest import BOTH, running

# stock Odoo waits 50 s after an error
NEVER = 10


def terminate(site) -> list[int]:
    """Let PostgreSQL end what the server keeps open in the system database, its listeners."""
    ports = [site.whole.direct.port, site.whole.pooled.port]
    ours = [local for port in ports for _pid, local in site.odoo.connections_to(port)]
    rows = site.postgres.execute(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'postgres' AND usename = %s AND client_port = ANY(%s)",
        [ROLE, ours],
    )
    assert rows
    return [pid for pid, _done in rows]


def kill(site):
    """The same, and wait for it."""
    for pid in terminate(site):
        wait_until(lambda pid=pid: not psutil.pid_exists(pid), "the backend ends")


def sessions(site) -> list[tuple]:
    """The direct sessions of this server; others of the same PostgreSQL have theirs."""
    ports = {local for _pid, local in site.odoo.connections_to(site.whole.direct.port)}
    return [row for row in site.postgres.listeners() if row[2] in ports]


def one_message_after_a_kill(site, timeout: float):
    channel = site.channel()
    with BusClient(site.odoo, channel) as bus:
        site.sender.send(channel, "first")
        bus.wait_for("first")
        kill(site)
        site.sender.send(channel, "second")
        bus.wait_for("second", timeout)


def test_stock_straight_delivers_and_loses_the_message_after_a_kill(deployment):
    with running(deployment, deployment.direct, addon=False) as site:
        assert site.deliver() == 100
        with pytest.raises(TimeoutError):
            one_message_after_a_kill(site, NEVER)


@pytest.mark.smoke
@BOTH
def test_one_message_after_a_kill_and_nothing_else(site):
    one_message_after_a_kill(site, 2)


def test_ten_thousand_channels(threaded):
    channel = threaded.channel()
    channels = [channel, *(f"{channel} {i}" for i in range(10_000))]
    with BusClient(threaded.odoo, channel, channels) as bus:

        def shown(channel: str, text: str) -> bool:
            # 14.0 misses what is sent between its look into the table and its subscription,
            # which takes a while for so many channels
            threaded.sender.send(channel, text)
            with contextlib.suppress(TimeoutError):
                bus.wait_for(text, 2)
            return text in bus.texts()

        wait_until(lambda: shown(channel, "first"), "the first channel hears")
        kill(threaded)
        wait_until(lambda: shown(channel, "second"), "it hears after a kill", 10)
        wait_until(lambda: shown(f"{channel} 9999", "third"), "the last channel hears", 10)


def test_notifications_of_somebody_else(threaded):
    channel = threaded.channel()
    with BusClient(threaded.odoo, channel) as bus:
        threaded.sender.send(channel, "first")
        bus.wait_for("first")
        before = sessions(threaded)
        for payload in ("", "hello", "5", "null", "[NaN]", '[{"a": 1}]', "[" * 7999, "x" * 7999):
            threaded.postgres.execute("SELECT pg_notify('imbus', %s)", [payload])
        # it names the channel after others, and is as long as a payload can be
        name = series.bus_channel(threaded.odoo.database, channel)
        threaded.postgres.execute(
            "INSERT INTO bus_bus (channel, message, create_date) VALUES (%s, %s, now())",
            [name, series.message("second")],
            dbname=threaded.odoo.database,
        )
        filler = '["' + "x" * (7999 - len(name) - 5) + '",' + name + "]"
        assert len(filler) == 7999
        threaded.postgres.execute("SELECT pg_notify('imbus', %s)", [filler])
        bus.wait_for("second", 5)
        assert sessions(threaded) == before
        assert "Bus.loop error" not in threaded.odoo.log()


def test_a_message_that_was_sent_before_odoo_listened(deployment):
    """Nobody heard its NOTIFY, and it is older than what a new websocket asks for."""
    wrong = {**deployment.direct_settings, "imdispatcher_db_port": 1}
    with running(deployment, options=wrong) as site, BusClient(site.odoo, "a") as bus:
        site.says("imbus: deaf: ")
        site.sender.send("a", "while deaf")
        # Odoo looks every 10 to 15 s while nothing is heard
        bus.wait_for("while deaf", 30)


@BOTH
def test_a_transaction_that_began_ten_minutes_before_a_kill(site):
    """Its message looks older than any loss, and nothing notifies of it."""
    channel = site.channel()
    database = site.odoo.database
    with BusClient(site.odoo, channel) as bus, site.whole.direct.connected(database) as session:
        site.sender.send(channel, "first")
        bus.wait_for("first")
        bus.reconnect()  # a new websocket that has received nothing is shown 50 s alone
        session.autocommit = False
        session.cursor().execute(
            "INSERT INTO bus_bus (channel, message, create_date)"
            " VALUES (%s, %s, now() AT TIME ZONE 'UTC' - interval '10 minutes')",
            [series.bus_channel(database, channel), series.message("long")],
        )
        terminate(site)
        session.commit()  # before the listener is back, which takes 0.1 s
        bus.wait_for("long")


@pytest.mark.skipif(not series.CRON_LISTENS, reason="before 15.0 Odoo starts jobs by the clock")
def test_the_cron_thread_outlives_an_error(deployment):
    """Without db_name Odoo lists the databases on the pooled connection each time."""
    pooler = deployment.pgbouncer
    options = {**deployment.direct_settings, "max_cron_threads": 1}
    with running(deployment, options=options, named=False) as site:
        site.says("listening at")
        pooler.stop()
        try:
            deployment.postgres.execute("NOTIFY cron_trigger, 'no such database'")
            site.says("the cron thread begins again after")
        finally:
            pooler.start()
        assert site.starts(10)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2], ids=["threaded", "prefork"])
def test_stopping_does_not_wait_for_postgresql(deployment, workers):
    """The listener is in the middle of connecting to somebody who never answers."""
    with deployment.odoo(workers=workers, options=deployment.direct_settings) as odoo:
        with BusClient(odoo, "a"):
            wait_until(lambda: "imbus: listening at" in odoo.log(), "it listens")
            ((_pid, local),) = odoo.connections_to(deployment.direct.port)
            (pid,) = [row[0] for row in deployment.postgres.listeners() if row[2] == local]
        (postmaster,) = deployment.postgres.execute(
            "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int"
        )[0]
        os.kill(postmaster, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: "imbus: deaf" in odoo.log(), "the listener is deaf")
            begin = time.monotonic()
            odoo.process.popen.send_signal(signal.SIGTERM)
            odoo.process.popen.wait(10 if not series.LONGPOLLING else 60)
            assert time.monotonic() - begin < 10 or series.LONGPOLLING
        finally:
            os.kill(postmaster, signal.SIGCONT)
