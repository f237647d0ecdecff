"""What ``./run bench`` measures, of all setups in turn."""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import threading
import time

from tests.stack import series
from tests.stack.client import BusClient
from tests.stack.deployment import Deployment, running_deployment
from tests.stack.odoo import ROLE, Sender
from tests.stack.process import wait_until

from .crowd import Crowd
from .results import Table, milliseconds, p99, ratio
from .setups import Server, Setup, setups
from .visitors import Visitors

CHANNEL = "benchmark"
NOTHING = "nothing arrives"
PAUSE = 0.02  # seconds, in which the servers come to rest
AFTER_KILL = 60  # seconds; stock Odoo waits 50 after an error
VISITORS = 20
# WorkerCron.sleep: a cron worker that is woken sleeps pid / 100 % 0.1 s, on average so long
CRON_SLEEPS = 0.045
# as in production; the tests run without fsync
POSTGRESQL = {"max_connections": 500, "fsync": "on"}


def flat(blocks) -> list[float]:
    return list(itertools.chain.from_iterable(blocks))


def in_turn(servers: list, blocks: int):
    """Yield each server once per block, in random order."""
    for _block in range(blocks):
        yield from random.sample(servers, len(servers))


class MeasuredServer:
    """A server with a websocket to it and a process that sends."""

    def __init__(self, server: Server, deployment: Deployment, stack: contextlib.ExitStack):
        self.name, self.setup, self.odoo = server.name, server.setup, server.odoo
        self.sender = Sender(server.odoo)
        stack.callback(self.sender.close)
        self.client = stack.enter_context(BusClient(server.odoo, CHANNEL))
        system = deployment.direct._replace(port=(server.pooler or deployment.postgres).port)
        self._rows = stack.enter_context(deployment.direct.connected(server.odoo.database))
        self._notify = stack.enter_context(system.connected("postgres"))
        self._sent = 0
        self.commits: list[list[float]] = []
        self.parts: list[list[float]] = []
        self.frames: list[list[float]] = []
        self.notifies: list[list[float]] = []

    def measure(self, number: int):
        """Send so many notifications; then as many bare NOTIFY."""
        for took in (self.commits, self.parts, self.frames, self.notifies):
            took.append([])
        for i in range(-5, number):
            time.sleep(PAUSE)
            text = self._next()
            sent = self.sender.send(CHANNEL, text)
            frame = self._frame(text, sent["begin"])
            if i >= 0:
                self.commits[-1].append(sent["end"] - sent["begin"])
                self.parts[-1].append(sent["end"] - sent["committed"])
                self.frames[-1].append(frame)
        for i in range(-5, number):
            frame = self._bare(self._next())
            if i >= 0:
                self.notifies[-1].append(frame)

    def _next(self) -> str:
        self._sent += 1
        return f"message {self._sent}"

    def _frame(self, text: str, begin: float) -> float:
        if not self.setup.hears:
            return 0.0
        self.client.wait_for(text)
        return dict(self.client.received)[text] - begin

    def _bare(self, text: str) -> float:
        channel = series.bus_channel(self.odoo.database, CHANNEL)
        series.insert(self._rows.cursor(), channel, text)
        cursor = self._notify.cursor()
        time.sleep(PAUSE)
        begin = time.monotonic()
        cursor.execute("SELECT pg_notify('imbus', %s)", [f"[{channel}]"])
        return self._frame(text, begin)

    def after_kill(self) -> tuple:
        """Return seconds until the first is shown, how many were sent, and how many never are."""
        begin = time.monotonic()
        sent = []
        while time.monotonic() < begin + AFTER_KILL:
            sent.append(f"after kill {len(sent)}")
            self.sender.send(CHANNEL, sent[-1])
            time.sleep(0.5)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: set(sent) <= set(self.client.texts()), "all", 5)
        shown = dict(self.client.received)
        times = [shown[text] - begin for text in sent if text in shown]
        return min(times, default=None), len(sent), sum(text not in shown for text in sent)

    def job(self, name: str) -> float:
        """Return seconds from a trigger to the job's start, without ``CRON_SLEEPS``."""
        time.sleep(1)  # until the last job's own notifications are over
        committed = self.sender.trigger(name)["end"]
        log = self.odoo.log
        wait_until(lambda: series.job_starts(log(), name), name, 120, 0.001)
        took = time.monotonic() - committed
        line = next(line for line in log().splitlines() if series.job_starts(line, name))
        return took - int(line.split()[2]) / 100 % 0.1


def notification(servers: list[MeasuredServer], number: int) -> Table:
    table = Table(
        "One notification",
        f"{10 * number} each, in 10 blocks in turn. commit: until Odoo's commit returns. its"
        " NOTIFY: the last part of that, after PostgreSQL has the transaction. frame: from the"
        " beginning of the commit until the websocket's frame is read. bare NOTIFY: from a NOTIFY"
        " on an open connection until the frame is read; the row was there before. ratio: to the"
        " first row, with the least and greatest of a block.",
        ["", "commit", "p99", "ratio", "its NOTIFY", "p99", "ratio", "frame", "p99", "ratio"],
    )
    table.head += ["bare NOTIFY", "ratio"]
    for server in in_turn(servers, 10):
        server.measure(number)
    first = servers[0]
    table.figures = {"commit": [], "frame": []}
    for server in servers:
        hears = server.setup.hears
        cells = [server.name]
        for name, with_p99, measured in (
            ("commits", True, True),
            ("parts", True, True),
            ("frames", True, hears),
            ("notifies", False, hears),
        ):
            blocks = getattr(server, name)
            took = flat(blocks)
            cells.append(milliseconds(statistics.median(took) if measured else None))
            if with_p99:
                cells.append(milliseconds(p99(took) if measured else None))
            cells.append(ratio(blocks, getattr(first, name)) if measured else "-")
        table.add(*cells)
        table.figures["commit"].append([server.name, statistics.median(flat(server.commits))])
        frame = statistics.median(flat(server.frames)) if hears else None
        table.figures["frame"].append([server.name, frame])
    return table.show()


def crowds(servers: list[MeasuredServer], sizes: tuple, rounds: int) -> Table:
    table = Table(
        "One notification to many websockets",
        f"The median of {rounds} rounds in turn: from the beginning of Odoo's commit until the last"
        " websocket has its frame.",
        ["", *(f"{size} websocket{'s' * (size > 1)}" for size in sizes), "ratio at the last"],
    )
    took = {server.name: {size: [] for size in sizes} for server in servers}
    hearing = [server for server in servers if server.setup.hears]
    for size in sizes:
        with contextlib.ExitStack() as stack:
            crowds_of = [
                (server, stack.enter_context(Crowd(server.odoo, f"crowd {size}", size)))
                for server in hearing
            ]
            for number, (server, crowd) in enumerate(in_turn(crowds_of, rounds + 1)):
                time.sleep(1)
                text = f"crowd {size} {number}."
                sent = server.sender.send(f"crowd {size}", text)
                arrivals = crowd.arrivals(text, 1, 60)[text]
                assert len(arrivals) == size, "each has it, once"
                if number >= len(hearing):  # the first round warms up
                    took[server.name][size].append(max(arrivals) - sent["begin"])
    first = took[hearing[0].name][sizes[-1]]
    for server in servers:
        if server not in hearing:
            table.add(server.name, *[NOTHING] * len(sizes), "-")
            continue
        mine = took[server.name]
        medians = [statistics.median(mine[size]) for size in sizes]
        last = ratio([[value] for value in mine[sizes[-1]]], [[value] for value in first])
        table.add(server.name, *map(milliseconds, medians), last)
        table.figures[server.name] = list(zip(sizes, medians))
    return table.show()


def bursts(
    servers: list[MeasuredServer], size: int, number: int, rounds: int, every: float = 0.0
) -> Table:
    """Measure many commits in a row.

    :param every: begin one each so many seconds, or without a pause
    """
    pace = f"one commit each {every * 1000:.0f} ms" if every else "one commit each, without a pause"
    table = Table(
        "The same number of commits a second" if every else "Bursts",
        f"{number:,} notifications, {pace}, to {size} websockets; {rounds} rounds in turn."
        " rate: messages at websockets per second, from the first commit until all have all;"
        " p50 and p99 of the time from a commit to each websocket.",
        ["", "rate", "ratio", "p50", "p99", "ratio", "lost", "twice"],
    )
    hearing = [server for server in servers if server.setup.hears]
    results: dict = {server.name: [] for server in hearing}
    for turn, server in enumerate(in_turn(hearing, rounds)):
        with Crowd(server.odoo, "burst", size) as crowd:
            begins, first_begin = {}, time.monotonic()
            for i in range(number):
                time.sleep(max(0, first_begin + i * every - time.monotonic()))
                text = f"burst {turn} {i}."
                begins[text] = server.sender.send("burst", text)["begin"]
            arrivals = crowd.arrivals(f"burst {turn} ", number, 120)
        times = [when for text in begins for when in arrivals.get(text, [])]
        late = [when - begins[text] for text in begins for when in arrivals.get(text, [])]
        lost = sum(max(0, size - len(arrivals.get(text, []))) for text in begins)
        twice = sum(max(0, len(arrivals.get(text, [])) - size) for text in begins)
        seconds = max(times) - min(begins.values())
        results[server.name].append((len(times) / seconds, late, lost, twice))
    first = results[hearing[0].name]
    for server in servers:
        if server not in hearing:
            table.add(server.name, NOTHING, *["-"] * 4, f"{size * number:,}", "-")
            continue
        rates, lates, lost, twice = zip(*results[server.name])
        table.add(
            server.name,
            f"{statistics.median(rates):,.0f}/s",
            ratio([[rate] for rate in rates], [[row[0]] for row in first]),
            milliseconds(statistics.median(flat(lates))),
            milliseconds(p99(flat(lates))),
            f"{p99(flat(lates)) / p99(flat(row[1] for row in first)):.2f}",
            sum(lost),
            sum(twice),
        )
    return table.show()


def killed(servers: list[MeasuredServer], deployment: Deployment) -> Table:
    table = Table(
        "The listener's backend is killed",
        f"Then one notification every 0.5 s for {AFTER_KILL} s. If only one is sent, Odoo"
        " without this addon never shows it.",
        ["", "shown after", "sent", "never shown"],
    )
    deployment.postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'postgres' AND usename = %s",
        [ROLE],
    )
    results = {}

    def measure(server: MeasuredServer):
        results[server.name] = server.after_kill()

    threads = [threading.Thread(target=measure, args=[server]) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers:
        after, sent, lost = results[server.name]
        table.add(server.name, NOTHING if after is None else f"{after:.1f} s", sent, lost)
    return table.show()


def cron(servers: list[MeasuredServer], number: int) -> Table:
    table = Table(
        "A cron job",
        "From the commit that triggers it to its start, in turn; only once where triggers do not"
        " arrive. When woken, a cron worker of Odoo first sleeps 0 to 90 ms, depending on the"
        " number of its process. p50 and max leave that out, on average adds 45 ms for it.",
        ["", "p50", "max", "on average", "ratio", "jobs"],
    )
    took: dict = {server.name: [] for server in servers}
    for i, server in enumerate(
        in_turn([server for server in servers if server.setup.cron], number)
    ):
        took[server.name].append(server.job(f"job {i}"))
    for server in servers:
        if not server.setup.cron:
            took[server.name].append(server.job("the only job"))
    first = statistics.median(took[servers[0].name]) + CRON_SLEEPS
    for server in servers:
        mine = took[server.name]
        median = statistics.median(mine)
        table.add(
            server.name,
            f"{median:.4f} s",
            f"{max(mine):.4f} s",
            f"{median + CRON_SLEEPS:.4f} s",
            f"{(median + CRON_SLEEPS) / first:.2f}",
            len(mine),
        )
    return table.show()


def pages(servers: list[Server], limit: int, rounds: int, seconds: float) -> Table:
    table = Table(
        "Pages per second",
        f"{VISITORS} visitors load the login page, which sends no notification, from 6 HTTP"
        f" workers; {rounds} rounds of {seconds:g} s in turn. Then the same while PostgreSQL gives"
        f" each instance {limit} connections to its database.",
        ["", "no limit", "ratio", f"{limit} connections", "ratio", "pages that failed"],
    )
    rates: dict = {server.name: {False: [], True: []} for server in servers}
    failed = dict.fromkeys(rates, 0)
    asked = dict.fromkeys(rates, 0)
    for limited in (False, True):
        if limited:
            for server in servers:
                limit_connections(server, limit)
        for server in in_turn(servers, rounds):
            with Visitors(server.odoo.url, VISITORS) as visitors:
                visitors.rate(0.5)
                rates[server.name][limited].append([visitors.rate(seconds)])
            if limited:
                failed[server.name] += visitors.failed
                asked[server.name] += visitors.failed + visitors.pages
    first = rates[servers[0].name]
    table.figures = {"no limit": [], f"{limit} connections": []}
    for server in servers:
        mine = rates[server.name]
        cells = []
        for limited, figures in zip((False, True), table.figures.values()):
            median = statistics.median([value for block in mine[limited] for value in block])
            cells += [f"{median:.1f}/s", ratio(mine[limited], first[limited])]
            figures.append([server.name, median])
        table.add(server.name, *cells, f"{failed[server.name]} of {asked[server.name]}")
    return table.show()


def limit_connections(server: Server, limit: int):
    """Let an instance have so many connections to its database, pooled or not."""
    name = server.odoo.database
    if server.pooler:
        server.pooler.admin(f"SET default_pool_size = {limit}")
        server.pooler.forget(name)
    postgres = server.deployment.postgres
    postgres.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {limit}')
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
    )


def backends(sizes: tuple, instances: tuple) -> Table:
    table = Table(
        "PostgreSQL's connections",
        f"At rest, after its pools were emptied / the most while {VISITORS} visitors load pages."
        " First by HTTP workers of one instance (+ gevent + 2 cron workers), then by instances of 2"
        " HTTP workers each.",
        [
            "",
            *(f"{size} workers" for size in sizes),
            "one more costs",
            *(f"{number} instance{'s' * (number > 1)}" for number in instances),
        ],
    )
    for setup in setups():
        by_size = [count_backends(setup, 1, size) for size in sizes]
        more = (by_size[-1][0] - by_size[0][0]) / (sizes[-1] - sizes[0])
        alone = by_size[sizes.index(2)]
        by_number = [alone if n == 1 else count_backends(setup, n, 2) for n in instances]
        table.add(
            setup.name,
            *(f"{rest} / {load}" for rest, load in by_size),
            f"{more:.1f}",
            *(f"{rest} / {load}" for rest, load in by_number),
        )
        table.figures[setup.name] = [
            [size, rest, load] for size, (rest, load) in zip(sizes, by_size)
        ]
    return table.show()


def count_backends(setup: Setup, instances: int, workers: int) -> tuple:
    """Return how many connections there are at rest, and how many at most under load."""
    with running_deployment(options=POSTGRESQL) as deployment, contextlib.ExitStack() as stack:

        def count() -> int:
            ((count,),) = deployment.postgres.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]
            )
            return count

        odoos = [setup.start(deployment, stack, workers, cron=2).odoo for _i in range(instances)]
        for odoo in odoos:
            stack.enter_context(BusClient(odoo, CHANNEL))
            for _page in range(4 * workers):
                odoo.answers()
        time.sleep(2)
        rest = count()
        with contextlib.ExitStack() as load:
            for odoo in odoos:
                load.enter_context(Visitors(odoo.url, VISITORS))
            most = 0
            end = time.monotonic() + 5
            while time.monotonic() < end:
                most = max(most, count())
                time.sleep(0.1)
        return rest, most
