"""What websockets wait for that missed something while the direct path was away."""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Iterator

from bus_alt_connection.config.timing import MISSED_MARGIN
from bus_alt_connection.integration.bus_protocol import MISSED, NEWEST
from tests.stack import series
from tests.stack.deployment import Deployment, running_deployment
from tests.stack.odoo import CHECKOUT, ROLE
from tests.stack.process import cpu_of
from tests.stack.tcp_proxy import TcpProxy

from .crowd import Crowd
from .fleet import LISTENING_SINCE
from .measures import POSTGRESQL
from .results import Table, milliseconds
from .setups import Server, Setup

CHANNEL = "crowd {}"
AWAY = 1.5  # seconds
FEW = 20  # websockets
REST = 62  # seconds before each loss: after 60 s a listener counts as stable again
TIMEOUT = 60  # seconds; stock Odoo waits 50 after an error
ORDINARY = 0.25  # seconds between ordinary notifications
MILLION = 1_000_000  # messages, of one day: Odoo keeps them so long


class Path:
    """A server whose direct path can be away, its websockets with a channel each."""

    def __init__(
        self, setup: Setup, deployment: Deployment, size: int, stack: contextlib.ExitStack
    ):
        self.setup, self.deployment, self.size = setup, deployment, size
        self._proxy = TcpProxy((deployment.direct.host, deployment.direct.port))
        stack.callback(self._proxy.close)
        # stock Odoo has one endpoint for everything
        straight = setup.pooled and deployment.direct._replace(port=self._proxy.port)
        self.server: Server = setup.start(deployment, stack, cron=0, straight=straight or None)
        self.odoo = self.server.odoo
        self._connection = stack.enter_context(deployment.direct.connected(self.odoo.database))
        self._system = stack.enter_context(deployment.direct.connected("postgres"))
        self.crowd = stack.enter_context(Crowd(self.odoo, CHANNEL, size))
        self._sent = 0

    def _channel(self, number: int) -> str:
        return series.bus_channel(self.odoo.database, CHANNEL.format(number))

    def send(self, numbers: list[int], seconds: float) -> str:
        """Send one notification to each of these, in so many seconds; return their prefix."""
        self._sent += 1
        begin = time.monotonic()
        for index, number in enumerate(numbers):
            time.sleep(max(0, begin + seconds * index / len(numbers) - time.monotonic()))
            channel = self._channel(number)
            series.insert(self._connection.cursor(), channel, f"sent {self._sent} {number}.")
            self._system.cursor().execute("SELECT pg_notify('imbus', %s)", [f"[{channel}]"])
        return f"sent {self._sent} "

    def lose(self, numbers: list[int]) -> tuple[str, float]:
        """Let the path be away, while each of these misses a notification.

        Return the prefix of those, and when the path was back (monotonic, s).
        """
        begin = time.monotonic()
        if self.setup.pooled:
            self._proxy.close()
        else:
            self.deployment.postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'postgres' AND usename = %s AND pid <> %s",
                [ROLE, self._system.info.backend_pid],
            )
        time.sleep(0.1)
        prefix = self.send(numbers, 1.0)
        time.sleep(max(0, begin + AWAY - time.monotonic()))
        if self.setup.pooled:
            self._proxy.open()
        return prefix, time.monotonic()

    def listening_since(self) -> float:
        """Return when it listened again (seconds since 1970), 0 for stock Odoo."""
        ((since,),) = self.deployment.postgres.execute(LISTENING_SINCE)
        return since or 0.0

    def transactions(self) -> int:
        """Return how many transactions PgBouncer has had for this database."""
        if not self.server.pooler:
            return 0
        rows = self.server.pooler.admin("SHOW STATS_TOTALS")
        return sum(row["xact_count"] for row in rows if row["database"] == self.odoo.database)

    def cpu(self) -> float:
        return cpu_of(self.odoo.process.pid)

    def settle(self):
        """Wait until a round through everybody is over."""
        before, end = -1, time.monotonic() + TIMEOUT
        while before != self.transactions() and time.monotonic() < end:
            before = self.transactions()
            time.sleep(1)


def few(path: Path, rounds: int) -> list:
    """Measure what those wait for who missed something, if they are few."""
    waited, listening, costs = [], [], []
    shown = 0
    for _round in range(rounds):
        time.sleep(REST)
        path.settle()
        before, cpu = path.transactions(), path.cpu()
        prefix, back = path.lose(random.sample(range(path.size), FEW))
        clock = time.time()
        arrivals = path.crowd.frames(prefix, FEW, TIMEOUT)
        told = path.transactions() - before
        path.settle()
        costs.append((told, path.transactions() - before, path.cpu() - cpu))
        late = [max(0.0, when - back) for times in arrivals.values() for when in times]
        shown += len(late)
        waited.append(late + [float("inf")] * (FEW - len(late)))
        listening.append(path.listening_since() - clock)
    every = [seconds for late in waited for seconds in late]
    told, whole, cpu = (statistics.median(values) for values in zip(*costs))
    return [
        seconds(statistics.median(listening) if path.setup.addon else None),
        seconds(statistics.median(every)),
        seconds(statistics.median(map(max, waited))),
        f"{shown} of {FEW * rounds}",
        f"{told:.0f}" if path.server.pooler else "-",
        f"{whole:.0f}" if path.server.pooler else "-",
        f"{cpu:.1f} s",
    ]


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return "never" if value == float("inf") else f"{value:.2f} s"


def everyone(path: Path) -> list:
    """Measure it once where all of them missed something, and ordinary notifications meanwhile."""
    time.sleep(REST)
    path.settle()
    prefix, back = path.lose(list(range(path.size)))
    found: dict = {}
    catching_up = threading.Thread(
        target=lambda: found.update(path.crowd.frames(prefix, path.size, TIMEOUT))
    )
    catching_up.start()
    sent = {}
    time.sleep(1.5)  # until it listens
    while catching_up.is_alive():
        number = random.randrange(path.size)
        begin = time.monotonic()
        sent[f"{path.send([number], 0)}{number}."] = begin
        time.sleep(ORDINARY)
    catching_up.join()
    late = [max(0.0, when - back) for times in found.values() for when in times]
    arrivals = path.crowd.frames("sent ", 10**9, 2)
    ordinary = [min(arrivals.get(text, [float("inf")])) - begin for text, begin in sent.items()]
    return [
        f"{len(late)} of {path.size}",
        seconds(statistics.median(late) if late else None),
        seconds(max(late, default=None)),
        seconds(statistics.median(ordinary) if ordinary else None),
        seconds(max(ordinary, default=None)),
    ]


def query(deployment: Deployment, number: int) -> Table:
    """Measure the query for who missed something."""
    table = Table(
        f"Who missed something, in a table of {number:,} messages",
        f"The query for a loss of {AWAY} s. The messages were sent at the same pace all day, or the"
        f" newest {NEWEST:,} of them in the last minute.",
        ["", "p50", "at most", "messages it returns"],
    )
    with deployment.odoo(deployment.direct, start=False) as odoo, deployment.direct.connected(
        odoo.database
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "INSERT INTO bus_bus (channel, message, create_date)"
            """ SELECT format('["%%s","crowd %%s"]', current_database(), i %% 2000), %s,"""
            " now() AT TIME ZONE 'UTC' - interval '1 day' * (%s - i) / %s"
            " FROM generate_series(1, %s) AS i",
            [series.message("x" * 300), number, number, number],
        )
        cursor.execute("ANALYZE bus_bus")
        for name in ("all day", "in the last minute"):
            took = []
            for _time in range(20):
                begin = time.monotonic()
                cursor.execute(MISSED, [NEWEST, AWAY + MISSED_MARGIN])
                messages = cursor.fetchall()
                took.append(time.monotonic() - begin)
            at_most = milliseconds(max(took))
            table.add(name, milliseconds(statistics.median(took)), at_most, len(messages))
            cursor.execute(
                "UPDATE bus_bus SET create_date = now() AT TIME ZONE 'UTC'"
                " WHERE id > (SELECT max(id) FROM bus_bus) - %s",
                [NEWEST],
            )
    return table.show()


def compared(before: str) -> list[Setup]:
    return [
        Setup("stock, no pooler", pooled=False),
        *([Setup("before", addon=before)] if before else []),
        Setup("bus_alt_connection", addon=str(CHECKOUT)),
    ]


def measure(
    before: str, sizes: tuple, rounds: int, messages: int = MILLION
) -> Iterator[tuple[str, Table]]:
    """Yield the names and the tables.

    :param before: the folder of another version of the addon
    :param messages: in the table, for the query
    """
    with running_deployment(options=POSTGRESQL) as deployment:
        yield "missed query", query(deployment, messages)
    for size in sizes:
        some = Table(
            f"{FEW} of {size:,} websockets missed a notification",
            f"The direct path is away for {AWAY} s, meanwhile {FEW} of {size:,} websockets, each"
            " with a channel of its own, are sent one notification each (stock Odoo: its listening"
            f" backend is killed instead). Median of {rounds} losses (stock Odoo: one): seconds"
            " after the path was back until the server listened again, and until those who missed"
            " something had it;"
            " transactions of the pooler until the last one had it, and until all were told; CPU of"
            " the Odoo server until then.",
            ["", "listens", "median", "last", "shown"],
        )
        some.head += ["transactions", "of the whole round", "CPU"]
        everybody = Table(
            f"Each of {size:,} websockets missed a notification",
            "The same, but each of them was sent one; and seconds that ordinary notifications"
            " take meanwhile, one each 0.25 s, from their INSERT on.",
            ["", "shown", "median", "last", "ordinary, median", "at most"],
        )
        for setup in compared(before):
            with running_deployment(
                options=POSTGRESQL
            ) as deployment, contextlib.ExitStack() as stack:
                path = Path(setup, deployment, size, stack)
                some.add(setup.name, *few(path, rounds if setup.addon else 1))
                print(some.rows[-1], flush=True)
                everybody.add(setup.name, *everyone(path))
                print(everybody.rows[-1], flush=True)
        yield f"missed {size}", some.show()
        yield f"missed by all {size}", everybody.show()
