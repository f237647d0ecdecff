"""PostgreSQL and PgBouncer, and the addon's listener between them and a loop like Odoo's."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time

import psycopg2
import pytest

from bus_alt_connection.config.parameters import Settings, load
from bus_alt_connection.config.timing import Timing
from bus_alt_connection.integration.database_manager import Tools
from bus_alt_connection.listener.listener import Listener

from ..stack.deployment import Servers
from ..stack.inboxes import inbox_with
from ..stack.process import run_folder, started, wait_until

# a tenth of the real times, for tests in which the time itself is not the point
QUICK = Timing(
    initial_delay=0.1,
    max_delay_early=0.2,
    max_delay=1.0,
    early=5.0,
    stable_after=5.0,
    probe_after_silence=(0.8, 1.0),
    probe_interval=(2.0, 3.0),
    probe_timeout=1.0,
    probe_retry=(0.8, 1.0),
    probe_retry_early=(0.1, 0.2),
    log_interval=5.0,
)

CHANNEL = "imbus"


@pytest.fixture(scope="session")
def servers():
    """PostgreSQL and PgBouncer, shared by the tests that leave them as they were."""
    with run_folder() as folder, started(Servers(folder)) as both:
        yield both


@pytest.fixture
def own_servers():
    """PostgreSQL and PgBouncer for one test."""
    with run_folder() as folder, started(Servers(folder)) as both:
        yield both


def settings_of(servers: Servers, **options) -> Settings:
    """What the addon makes of an odoo.conf with these lines, behind PgBouncer."""
    own = {"application_name": f"odoo-{os.getpid()}", "sslmode": "prefer"}
    own.update(servers.pooled._asdict(), **options.pop("own", {}))
    options = {**servers.direct_settings, **options}
    return load({}, {k: str(v) for k, v in options.items()}, lambda db: {"database": db, **own})


def tools_of(settings: Settings, *databases: str) -> Tools:
    """Where pg_dump and its like go in an Odoo that knows these databases."""
    return Tools(settings, lambda: databases or (*settings.served, settings.database))


CREATE = """
    CREATE TABLE IF NOT EXISTS message (id serial, time timestamptz);
    GRANT ALL ON message, message_id_seq TO PUBLIC
"""


class Table:
    """Messages that are kept in a table and told by NOTIFY, as Odoo's bus does it."""

    def __init__(self, servers: Servers):
        self._servers = servers
        self._lock = threading.Lock()
        self._connection = None
        self.sent: list[int] = []
        if servers.postgres.process.running():
            servers.postgres.execute(CREATE)

    @contextlib.contextmanager
    def _cursor(self):
        if self._connection is None or self._connection.closed:
            path = self._servers.pooled._asdict()
            self._connection = psycopg2.connect(**path, dbname="postgres")
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            try:
                yield cursor
            except psycopg2.OperationalError:
                self._connection.close()
                raise

    def send(self, retry: float = 30.0) -> int:
        """Commit one message, then NOTIFY, both through the pooler."""

        def committed():
            with contextlib.suppress(psycopg2.Error), self._lock, self._cursor() as cursor:
                cursor.execute("INSERT INTO message (time) VALUES (now()) RETURNING id")
                self.sent.append(cursor.fetchone()[0])
                cursor.execute(f"NOTIFY {CHANNEL}, '[\"all\"]'")
                return self.sent[-1]

        return wait_until(committed, "a message is committed", retry)

    def after(self, last: int) -> list[int]:
        with self._lock, self._cursor() as cursor:
            cursor.execute("SELECT id FROM message WHERE id > %s ORDER BY id", [last])
            return [row[0] for row in cursor.fetchall()]

    def close(self):
        if self._connection:
            self._connection.close()


class Loop(threading.Thread):
    """Waits on an inbox as Odoo's loops do, and looks into the table when it is woken."""

    def __init__(self, table: Table, channel: str = CHANNEL, **inbox):
        super().__init__(daemon=True)
        self.inbox = inbox_with(channel, **inbox)
        self.payloads: list[str] = []
        self.shown: list[int] = []
        self._table = table
        self._last = max(table.after(0), default=0)
        self.start()

    def run(self):
        while not self.inbox.closed:
            with contextlib.suppress(ValueError, OSError, psycopg2.Error):
                if select.select([self.inbox], [], [], 0.2)[0]:
                    self.inbox.poll()
                    self.payloads += [notify.payload for notify in self.inbox.notifies]
                    self.inbox.notifies.clear()
                    self.shown += self._table.after(self._last)
                    self._last = max([self._last, *self.shown])

    def wait_for(self, message: int, timeout: float = 10.0):
        wait_until(lambda: message in self.shown, f"message {message} is shown", timeout, 0.01)


@pytest.fixture
def table(servers):
    made = Table(servers)
    yield made
    made.close()


class ListeningLoop:
    """A listener and the loop that it serves."""

    def __init__(self, listener: Listener, loop: Loop, table: Table):
        self.listener, self.loop, self.table = listener, loop, table
        self.status = listener.status

    @property
    def state(self) -> str:
        return self.status.state.value

    def wait_for(self, state: str, timeout: float = 20.0):
        wait_until(lambda: self.state == state, f"the listener is {state}", timeout, 0.01)

    def delivers(self, timeout: float = 10.0) -> float:
        """Send a message and return the seconds until it was shown."""
        begin = time.monotonic()
        self.loop.wait_for(self.table.send(), timeout)
        return time.monotonic() - begin


@pytest.fixture
def listen():
    """A function that starts a listener for settings; ``times`` are cut unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def listen(servers: Servers, settings: Settings | None = None, times: Timing = QUICK):
            table = Table(servers)
            stack.callback(table.close)
            loop = Loop(
                table,
                catch_up_while_deaf=True,
                catch_up_payloads=lambda told: [[json.dumps(["everything"])]],
            )
            stack.callback(loop.inbox.close)
            listener = Listener(settings or settings_of(servers), loop.inbox, times)
            listener.start()
            return ListeningLoop(listener, loop, table)

        yield listen
