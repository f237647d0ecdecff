"""``./run bench fleet``: many Odoo servers, their websockets, and one PostgreSQL that kills."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
import time

from tests.faults import idle
from tests.stack import series
from tests.stack.deployment import Deployment, running_deployment
from tests.stack.odoo import ROLE, Odoo
from tests.stack.pgbouncer import PgBouncer
from tests.stack.process import cpu_of

from . import results
from .crowd import Crowd
from .measures import CHANNEL, POSTGRESQL
from .results import Table

REST = 62  # seconds before each kill: after 60 s a listener counts as stable again
CALM = 2  # seconds after a kill, until reconnecting is over
# listeners in a process without Odoo's server: the cost of the addon itself; 100 prefork servers
# with two cron workers each have 300
LISTENERS = (10, 100, 300)
PARTS = ("Odoo", "PgBouncer", "PostgreSQL", "websockets")
# the last query of a listener is its LISTEN
LISTENING_SINCE = """
    SELECT max(extract(epoch FROM state_change))::float FROM pg_stat_activity
    WHERE application_name LIKE '%-listener'
"""


@dataclasses.dataclass
class Round:
    """One notification to each server's websockets; times in seconds from its begin.

    :param listening: when the last server listened again
    :param arrived: when each websocket had it
    :param wrong: how many do not have it once
    :param cpu: what each of ``PARTS`` has used until the last one had it
    """

    listening: float
    arrived: list[float]
    wrong: int
    cpu: list[float]

    @property
    def last(self) -> float:
        return max(self.arrived, default=float("inf"))


class Fleet:
    """Odoo servers with so many websockets each.

    :param shared: one PgBouncer for all servers, else each has its own
    """

    def __init__(
        self,
        deployment: Deployment,
        number: int,
        websockets: int,
        shared: bool,
        stack: contextlib.ExitStack,
    ):
        self.deployment = deployment
        self._sent = 0
        self.poolers = [deployment.pgbouncer]
        if not shared:
            self.poolers = [self._pooler(stack, index) for index in range(number)]
        # a threaded server has a thread for each websocket and does not take 500; one worker
        # makes it prefork, with its websockets in the gevent process
        options = {**deployment.direct_settings, "max_cron_threads": 1}
        endpoints = [deployment.pooled._replace(port=pooler.port) for pooler in self.poolers]
        endpoints *= number // len(endpoints)
        self.odoos = [
            stack.enter_context(deployment.odoo(pooled, workers=1, options=options))
            for pooled in endpoints
        ]
        self.crowds = [stack.enter_context(Crowd(odoo, CHANNEL, websockets)) for odoo in self.odoos]
        self._rows = [
            stack.enter_context(pooled.connected(odoo.database))
            for pooled, odoo in zip(endpoints, self.odoos)
        ]
        self._notify = [stack.enter_context(pooled.connected("postgres")) for pooled in endpoints]
        self._probes = deployment.postgres.connect()
        stack.callback(self._probes.close)
        self._probes.cursor().execute("LISTEN bus_alt_connection")

    def _pooler(self, stack: contextlib.ExitStack, index: int) -> PgBouncer:
        folder = self.deployment.folder / f"pgbouncer-{index}"
        pooler = PgBouncer(
            folder, self.deployment.postgres, self.deployment.pgbouncer.passwords
        ).start()
        stack.callback(pooler.stop)
        return pooler

    def probes(self) -> int:
        """Return how many probes were sent since this was asked last."""
        self._probes.poll()
        number = len(self._probes.notifies)
        self._probes.notifies.clear()
        return number

    def connections(self) -> list[int]:
        """Return how many connections all servers have to PostgreSQL and to PgBouncer, and how
        many PgBouncer has to PostgreSQL."""
        direct = sum(len(odoo.connections_to(self.deployment.direct.port)) for odoo in self.odoos)
        ports = {pooler.port for pooler in self.poolers}
        pooled = sum(len(odoo.connections_to(port)) for odoo in self.odoos for port in ports)
        ((all_of_odoo,),) = self.deployment.postgres.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]
        )
        return [direct, pooled, all_of_odoo - direct]

    def cpu(self) -> list[float]:
        """Return the seconds of CPU that each of ``PARTS`` has used."""
        parts = (
            [odoo.process.pid for odoo in self.odoos],
            [pooler.process.pid for pooler in self.poolers],
            [self.deployment.postgres.process.pid],
            [crowd.pid for crowd in self.crowds],
        )
        return [sum(map(cpu_of, pids)) for pids in parts]

    def send(self, kill: bool) -> Round:
        """Send one notification to each server's websockets.

        :param kill: all listeners first
        """
        self._sent += 1
        before, begin, clock = self.cpu(), time.monotonic(), time.time()
        if kill:
            self.deployment.postgres.kill_listeners()
        text = f"message {self._sent}."
        for odoo, rows, notify in zip(self.odoos, self._rows, self._notify):
            self._send(odoo, rows, notify, text)
        arrivals = [crowd.arrivals(text, 1, 60).get(text, []) for crowd in self.crowds]
        cpu = spent(before, self.cpu())
        ((since,),) = self.deployment.postgres.execute(LISTENING_SINCE)
        wrong = sum(abs(crowd.number - len(mine)) for crowd, mine in zip(self.crowds, arrivals))
        arrived = sorted(when - begin for mine in arrivals for when in mine)
        return Round(since - clock, arrived, wrong, cpu)

    def _send(self, odoo: Odoo, rows, notify, text: str):
        channel = series.bus_channel(odoo.database, CHANNEL)
        series.insert(rows.cursor(), channel, text)
        notify.cursor().execute("SELECT pg_notify('imbus', %s)", [f"[{channel}]"])


def spent(before: list[float], after: list[float]) -> list[float]:
    return [b - a for a, b in zip(before, after)]


def measure(fleet: Fleet, minutes: float) -> list[Table]:
    rested = probes = 0
    most = [0, 0, 0]
    resting = [0.0] * len(PARTS)
    sent: dict[bool, list[Round]] = {False: [], True: []}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(CALM)
        fleet.probes()
        before, begin = fleet.cpu(), time.monotonic()
        time.sleep(REST)
        rested += time.monotonic() - begin
        resting = [a + b for a, b in zip(resting, spent(before, fleet.cpu()))]
        probes += fleet.probes()
        most = list(map(max, most, fleet.connections()))
        for kill, rounds in sent.items():
            rounds.append(fleet.send(kill))
    return [at_rest(fleet, rested, probes, most, resting).show(), killed(fleet, sent).show()]


def describe(fleet: Fleet) -> str:
    websockets = sum(crowd.number for crowd in fleet.crowds)
    poolers = "one for all" if len(fleet.poolers) == 1 else "one each"
    return (
        f"{len(fleet.odoos)} Odoo servers (prefork: 1 HTTP worker, 1 cron worker), {websockets}"
        f" websockets, PgBouncer: {poolers}"
    )


def at_rest(fleet: Fleet, rested: float, probes: int, most: list, cpu: list) -> Table:
    table = Table(
        "A fleet at rest",
        f"{describe(fleet)}; {rested:.0f} s in which nothing happens. Connections of all servers"
        " after it, the most of each round. CPU in % of one core.",
        [
            *("probes", "direct", "to PgBouncer", "from there to PostgreSQL"),
            *("CPU of an Odoo, all in all", "of all PgBouncers", "of PostgreSQL"),
        ],
    )
    of_odoo, *others = (100 * seconds / rested for seconds in cpu[:3])
    percents = [of_odoo / len(fleet.odoos), *others]
    table.add(f"{probes / rested:.2f}/s", *most, *(f"{percent:.2f} %" for percent in percents))
    return table


def killed(fleet: Fleet, sent: dict[bool, list[Round]]) -> Table:
    websockets = sum(crowd.number for crowd in fleet.crowds)
    table = Table(
        "All listeners of a fleet are killed",
        f"One notification to each server's websockets, {len(sent[True])} times; and the same right"
        f" after all listeners were killed. {describe(fleet)}. Medians: seconds until all servers"
        " listen again, until half of the websockets and until the last one have the notification;"
        f" then the seconds of CPU until then. The machine has {os.cpu_count()} cores.",
        [
            *("", "listening", "half", "the last", "at most"),
            *(f"CPU of {name}" for name in PARTS),
            *("cores busy", "websockets that have it", "lost or twice"),
        ],
    )
    for kill, rounds in sent.items():
        median = statistics.median
        last = [each.last for each in rounds]
        table.add(
            "killed" if kill else "heard",
            f"{median(each.listening for each in rounds):.2f} s" if kill else "-",
            f"{median(median(each.arrived or [each.last]) for each in rounds):.2f} s",
            f"{median(last):.2f} s",
            f"{max(last):.2f} s",
            *(f"{median(values):.2f} s" for values in zip(*(each.cpu for each in rounds))),
            f"{median(sum(each.cpu) / each.last for each in rounds):.2f}",
            f"{min(len(each.arrived) for each in rounds)} of {websockets}",
            sum(each.wrong for each in rounds),
        )
    return table


def alone(seconds: float) -> Table:
    """Measure listeners in a process of their own."""
    table = Table(
        "What a listener costs",
        f"So many listeners in one process without Odoo hear nothing but probes for {seconds:g} s.",
        ["listeners", "probes", "CPU of each", "of PostgreSQL", "of PgBouncer"],
    )
    for number in LISTENERS:
        row = idle(number, seconds)
        each, *others = (100 * row[name] / seconds for name in ("cpu", "postgres", "pgbouncer"))
        cells = f"{each / number:.3f} %", *(f"{percent:.2f} %" for percent in others)
        table.add(number, f"{row['probes'] / seconds:.2f}/s", *cells)
    return table.show()


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench fleet", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of the whole fleet")
    parser.add_argument("--servers", type=int, default=10)
    parser.add_argument("--websockets", type=int, default=50, help="of each server")
    parser.add_argument("--shared", action="store_true", help="one PgBouncer for all servers")
    options = parser.parse_args(arguments)
    with running_deployment(options=POSTGRESQL) as deployment, contextlib.ExitStack() as stack:
        print(results.machine(deployment), flush=True)
        fleet = Fleet(deployment, options.servers, options.websockets, options.shared, stack)
        measure(fleet, options.minutes)
    alone(60)
