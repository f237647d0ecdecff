"""Nothing is lost and nobody stays deaf, whatever happens; ``./run faults`` tries all of it."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from .faults import idle
from .stack import series
from .stack.client import BusClient
from .stack.odoo import ROLE, Sender
from .stack.postgres import Postgres
from .stack.process import wait_until

MODES = pytest.mark.parametrize("workers", [0, 2], ids=["threaded", "prefork"])

# stock Odoo waits 50 s after an error
NEVER = 10


@pytest.fixture
def sender_for():
    with contextlib.ExitStack() as stack:

        def sender_for(odoo):
            sender = Sender(odoo)
            stack.callback(sender.close)
            return sender

        yield sender_for


@pytest.mark.parametrize(
    "mode, faults",
    [
        ("threaded", ["killed backend", "standby promoted", "deaf"]),
        ("prefork", ["killed backend", "black hole"]),
    ],
)
def test_a_handful(mode, faults):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--mode", mode, *faults],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout


def kill(postgres):
    """End what Odoo keeps open in the system database, its listeners, and wait for the end."""
    rows = postgres.execute(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'postgres' AND usename = %s",
        [ROLE],
    )
    assert rows
    for pid, _done in rows:
        wait_until(lambda pid=pid: not psutil.pid_exists(pid), "the backend ends")


def test_stock_loses_the_message_after_a_kill(deployment, sender_for):
    with deployment.odoo(deployment.straight, addon=False) as odoo, BusClient(odoo, "a") as bus:
        sender = sender_for(odoo)
        sender.send("a", "first")
        bus.wait_for("first")
        kill(deployment.postgres)
        sender.send("a", "second")
        with pytest.raises(TimeoutError):
            bus.wait_for("second", NEVER)


@MODES
def test_one_message_after_a_kill_and_nothing_else(deployment, sender_for, workers):
    with deployment.odoo(workers=workers, options=deployment.direct) as odoo, BusClient(
        odoo, "a"
    ) as bus:
        sender = sender_for(odoo)
        sender.send("a", "first")
        bus.wait_for("first")
        kill(deployment.postgres)
        sender.send("a", "second")
        bus.wait_for("second", 2)


def test_a_message_that_was_sent_before_odoo_listened(deployment, sender_for):
    """Nobody heard its NOTIFY, and it is older than what a new websocket asks for."""
    wrong = {**deployment.direct, "imdispatcher_db_port": 1}
    with deployment.odoo(options=wrong) as odoo, BusClient(odoo, "a") as bus:
        wait_until(lambda: "imbus: deaf: " in odoo.log(), "the listener is deaf")
        sender_for(odoo).send("a", "while deaf")
        # Odoo looks every 10 to 15 s while nothing is heard
        bus.wait_for("while deaf", 30)


def test_100_kills(deployment, sender_for):
    with deployment.odoo(workers=2, options=deployment.direct) as odoo, BusClient(odoo, "a") as bus:
        sender = sender_for(odoo)

        def killed(times):
            for _time in range(times):
                ((pid, *_),) = wait_until(deployment.postgres.listeners, "a listener")
                deployment.postgres.execute("SELECT pg_terminate_backend(%s)", [pid])
                wait_until(
                    lambda pid=pid: (
                        [row[0] for row in deployment.postgres.listeners()] not in ([], [pid])
                    ),
                    "another listener",
                )
            ((_pid, name, _port),) = deployment.postgres.listeners()
            return psutil.Process(int(name.split("-")[1]))

        process = killed(20)
        files, memory = process.num_fds(), process.memory_info().rss
        killed(100)
        wait_until(lambda: process.num_fds() <= files, "files are closed again")
        assert process.memory_info().rss - memory < 8 << 20
        assert len(deployment.postgres.listeners()) == 1
        sender.send("a", "after all")
        bus.wait_for("after all", 5)


def test_notifications_of_somebody_else(deployment, sender_for):
    with deployment.odoo(options=deployment.direct) as odoo, BusClient(odoo, "a") as bus:
        sender = sender_for(odoo)
        sender.send("a", "first")
        bus.wait_for("first")
        ((backend, *_),) = deployment.postgres.listeners()
        for payload in ("", "hello", "5", "null", "[NaN]", '[{"a": 1}]', "[" * 7999, "x" * 7999):
            deployment.postgres.execute("SELECT pg_notify('imbus', %s)", [payload])
        sender.send("a", "second")
        bus.wait_for("second", 5)
        assert deployment.postgres.listeners()[0][0] == backend
        assert odoo.log().count("ignored a notification that is not a JSON list") == 1
        assert "Bus.loop error" not in odoo.log()


def test_a_payload_at_the_limit_of_notify(deployment, sender_for):
    with deployment.odoo(options=deployment.direct) as odoo, BusClient(odoo, "a") as bus:
        sender_for(odoo).send("a", "first")
        bus.wait_for("first")
        # the row, and a NOTIFY that names the channel after others, 7,999 bytes long
        channel = series.bus_channel(odoo.database, "a")
        deployment.postgres.execute(
            "INSERT INTO bus_bus (channel, message, create_date) VALUES (%s, %s, now())",
            [channel, series.message("second")],
            dbname=odoo.database,
        )
        filler = '["' + "x" * (7999 - len(channel) - 5) + '",' + channel + "]"
        assert len(filler) == 7999
        deployment.postgres.execute("SELECT pg_notify('imbus', %s)", [filler])
        bus.wait_for("second", 5)


def test_ten_thousand_channels(deployment, sender_for):
    with deployment.odoo(options=deployment.direct) as odoo:
        channels = ["a", *(f"channel {i}" for i in range(10_000))]
        with BusClient(odoo, "a", channels) as bus:
            sender = sender_for(odoo)
            sender.send("a", "first")
            bus.wait_for("first")
            kill(deployment.postgres)
            sender.send("a", "second")
            bus.wait_for("second", 5)
            sender.send("channel 9999", "third")
            bus.wait_for("third", 5)


def test_another_server_is_found_out(deployment, sender_for):
    other = Postgres(deployment.folder / "other").start()
    try:
        other.create_role(deployment.straight.user, deployment.password)
        options = {**deployment.direct, "imdispatcher_db_port": other.port}
        with deployment.odoo(options=options) as odoo, BusClient(odoo, "a") as bus:
            line = f"was not heard at 127.0.0.1:{other.port} within 10 s"
            wait_until(lambda: line in odoo.log(), line)
            assert "imbus: listening" not in odoo.log()
            sender_for(odoo).send("a", "late")
            bus.wait_for("late", 30)
    finally:
        other.stop()


def test_pgbouncer_away_does_not_tear_down_a_listener(deployment, sender_for):
    with deployment.odoo(options=deployment.direct) as odoo, BusClient(odoo, "a") as bus:
        sender = sender_for(odoo)
        sender.send("a", "first")
        bus.wait_for("first")
        before = deployment.postgres.listeners()
        deployment.pgbouncer.stop()
        try:
            line = "imbus: unknown whether notifications arrive"
            wait_until(lambda: line in odoo.log(), line, 40)
            # what it hears meanwhile, it passes on
            time.sleep(6)
        finally:
            deployment.pgbouncer.start()
        lines = odoo.log().count("imbus: listening at")
        wait_until(lambda: odoo.log().count("imbus: listening at") > lines, "known again", 40)
        assert deployment.postgres.listeners() == before
        assert "deaf" not in odoo.log()
        assert odoo.log().count(line) == 1


@pytest.mark.skipif(not series.CRON_LISTENS, reason="before 15.0 Odoo starts jobs by the clock")
def test_the_cron_thread_outlives_an_error(deployment):
    """Without db_name Odoo lists the databases on the normal path each time."""
    from .test_cron import CRON, starts

    options = {**deployment.direct, **CRON}
    with deployment.odoo(options=options, named=False) as odoo:
        wait_until(lambda: "cron_trigger: listening" in odoo.log(), "cron listens")
        deployment.pgbouncer.stop()
        try:
            deployment.postgres.execute("NOTIFY cron_trigger, 'no such database'")
            line = "the cron thread begins again after"
            wait_until(lambda: line in odoo.log(), line)
        finally:
            deployment.pgbouncer.start()
        assert starts(odoo, "a job", 10)


@MODES
def test_stopping_does_not_wait_for_postgresql(deployment, workers):
    """The listener is in the middle of connecting to somebody who never answers."""
    with deployment.odoo(workers=workers, options=deployment.direct) as odoo:
        with BusClient(odoo, "a"):
            ((pid, *_),) = wait_until(deployment.postgres.listeners, "the listener")
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


def test_idle_listeners_share_their_probes():
    row = idle(number=5, seconds=20)
    assert row["deaf"] == 0
    assert row["probes"] <= 4
