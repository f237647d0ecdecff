"""A commit whose NOTIFY cannot be sent is a commit like any other, and is shown in time."""

import contextlib
import secrets
import signal
import threading
import time

import pytest
import requests

from ..stack import series
from ..stack.client import BusClient
from ..stack.deployment import running_deployment
from ..stack.odoo import NotCommitted
from ..stack.process import wait_until
from .conftest import running


@pytest.fixture(scope="module")
def deployment():
    """With a PgBouncer that no other Odoo uses."""
    with running_deployment() as whole:
        yield whole


@pytest.fixture(scope="module")
def site(deployment):
    with running(deployment, options={**deployment.direct_settings, "db_maxconn": 4}) as site:
        assert site.deliver(5) == 5
        yield site


@pytest.fixture(scope="module")
def stock_site(deployment):
    with running(deployment, addon=False, options={"db_maxconn": 4}) as site:
        yield site


@contextlib.contextmanager
def away(deployment):
    """PgBouncer has everything but the system database."""
    admin = deployment.pgbouncer.admin
    admin("DISABLE postgres")
    admin("KILL postgres")
    admin("RESUME postgres")
    try:
        yield
    finally:
        admin("ENABLE postgres")


@contextlib.contextmanager
def paused(deployment, seconds: float):
    admin = deployment.pgbouncer.admin
    admin("PAUSE postgres")
    resume = threading.Timer(seconds, admin, ["RESUME postgres"])
    resume.start()
    yield
    resume.join()


def test_the_system_database_is_away(site, deployment):
    channel = site.channel()
    with BusClient(site.odoo, channel) as client:
        with away(deployment):
            for i in range(5):
                sent = site.sender.send(channel, f"message {i}")
                assert sent["end"] - sent["committed"] < 0.5
            time.sleep(1)
            assert client.texts() == []
        client.wait_for("message 4", 5)
        assert client.texts() == [f"message {i}" for i in range(5)]


def test_stock_odoo_fails_then(stock_site, deployment):
    with away(deployment), pytest.raises(NotCommitted, match="disabled"):
        stock_site.sender.send("channel", "it is committed all the same")


def test_the_system_database_is_paused(site, deployment):
    channel = site.channel()
    with BusClient(site.odoo, channel) as client:
        with paused(deployment, 3):
            sent = site.sender.send(channel, "the first")
            assert sent["end"] - sent["committed"] < 1  # it looks whether the pooler is there
            sent = site.sender.send(channel, "message")
            assert sent["end"] - sent["committed"] < 0.5
        client.wait_for("message", 3)


def test_stock_odoo_waits_then(stock_site, deployment):
    with paused(deployment, 3):
        sent = stock_site.sender.send("channel", "message")
        assert sent["end"] - sent["committed"] > 2


SEND = (
    "env['bus.bus']._sendone({!r}, {!r}, {{'text': {!r}}})"
    if series.NUMBER >= 15
    else "env['bus.bus'].sendone({!r}, {{'type': {!r}, 'payload': {{'text': {!r}}}}})"
)
NO_CONNECTION_LEFT = """
from psycopg2.pool import PoolError
held = []
try:
    while True:
        held.append(env.registry.cursor())
except PoolError:
    print("no connection is left")
"""


def shell(site, channel: str, before: str = "") -> str:
    """Commit a notification in ``odoo shell``, which then ends, and return its output."""
    send = SEND.format(channel, series.MESSAGE_TYPE, "from a shell")
    script = f"{before}\n{send}\nenv.cr.commit()\nprint('committed')\n"
    done = site.odoo.run_command("shell", "--no-http", text=script)
    return done.stdout + done.stderr


@pytest.mark.parametrize("before", ["", NO_CONNECTION_LEFT], ids=["", "no connection left"])
def test_a_script_that_ends_at_once(site, before):
    channel = site.channel()
    with BusClient(site.odoo, channel) as client:
        said = shell(site, channel, before)
        assert "committed" in said, said
        assert ("no connection is left" in said) == bool(before)
        client.wait_for("from a shell", 3)


def test_stock_odoo_needs_a_connection_more(stock_site):
    with pytest.raises(RuntimeError, match="PoolError: The Connection Pool Is Full"):
        shell(stock_site, "channel", NO_CONNECTION_LEFT)


def run_code(odoo, code: str):
    """Run this in a server action, called as a client does."""

    def call(service: str, method: str, *args):
        params = {"service": service, "method": method, "args": args}
        answer = requests.post(f"{odoo.url}/jsonrpc", json={"params": params}, timeout=30).json()
        assert "error" not in answer, answer
        return answer["result"]

    def execute(*args):
        return call("object", "execute", odoo.database, user, "admin", "ir.actions.server", *args)

    user = call("common", "login", odoo.database, "admin", "admin")
    (model,) = call(
        *("object", "execute", odoo.database, user, "admin"),
        *("ir.model", "search", [("model", "=", "res.partner")]),
    )
    action = execute("create", {"name": "x", "model_id": model, "state": "code", "code": code})
    execute("run", [action])


STOPS = [
    # workers, signal, what its log says so many seconds before a process ends that has nothing to
    # send
    (0, signal.SIGINT, "Initiating shutdown", 0.5),
    (1, signal.SIGINT, "exiting. request_count", 0.1),
    (0, signal.SIGHUP, "Initiating server reload", 0.5),  # begins again in the same process
]


@pytest.mark.parametrize("workers, kind, words, seconds", STOPS)
def test_a_server_that_stops(deployment, workers, kind, words, seconds):
    """Its worker stops as one that is replaced."""
    admin = deployment.pgbouncer.admin
    with contextlib.closing(deployment.postgres.connect()) as ear:
        ear.cursor().execute("LISTEN imbus")
        with running(deployment, workers=workers, options=deployment.direct_settings) as site:
            channel = site.channel()
            admin("PAUSE postgres")
            try:
                run_code(site.odoo, SEND.format(channel, series.MESSAGE_TYPE, "the last"))
                site.odoo.process.popen.send_signal(kind)
                site.says(words)
                time.sleep(seconds + 1)
            finally:
                admin("RESUME postgres")
            if kind == signal.SIGINT:
                site.odoo.process.popen.wait(10)

            def heard():
                ear.poll()
                return any(channel in notify.payload for notify in ear.notifies)

            wait_until(heard, "it is sent", 3)


@pytest.mark.skipif(series.NUMBER < 16, reason="14.0 knows only NOTIFY")
def test_a_function_instead_of_pg_notify(deployment):
    function = f"notify_{secrets.token_hex(4)}"
    deployment.postgres.execute(
        f"CREATE TABLE {function}_calls (payload text);"
        f"GRANT ALL ON {function}_calls TO PUBLIC;"
        f"CREATE FUNCTION {function}(channel text, payload text) RETURNS void LANGUAGE sql AS"
        f" $$INSERT INTO {function}_calls VALUES (payload);"
        " SELECT pg_notify(channel, payload)$$"
    )
    environ = {"ODOO_NOTIFY_FUNCTION": function}
    with running(deployment, options=deployment.direct_settings, environ=environ) as site:
        assert site.deliver(5) == 5
    calls = deployment.postgres.execute(f"SELECT count(*) FROM {function}_calls")
    assert calls >= [(1,)]  # equal ones that wait are sent once
