"""``./run bench fleet``: many Odoo servers, their websockets, and one PostgreSQL that kills."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import psutil
import psycopg2

from tests.faults import idle
from tests.stack import series
from tests.stack.deployment import Deployment, deployment
from tests.stack.odoo import ROLE, Odoo

from . import results
from .crowd import Crowd
from .measures import CHANNEL, POSTGRESQL
from .results import Table

REST = 25  # seconds, in which nothing happens before each kill
CALM = 2  # seconds after a kill, until what it has caused is over
LISTENERS = (10, 100)  # alone, in a process that has nothing else: what the addon itself costs


class Fleet:
    """Odoo servers behind one PgBouncer, with so many websockets each."""

    def __init__(
        self, whole: Deployment, number: int, websockets: int, stack: contextlib.ExitStack
    ):
        self.whole = whole
        self._sent = 0
        options = {**whole.direct, "max_cron_threads": 1}
        self.odoos = [stack.enter_context(whole.odoo(options=options)) for _i in range(number)]
        self.crowds = [stack.enter_context(Crowd(odoo, CHANNEL, websockets)) for odoo in self.odoos]
        self._rows = [self._connect(stack, odoo.database) for odoo in self.odoos]
        self._notify = self._connect(stack, "postgres")
        self._probes = whole.postgres.connect()
        stack.callback(self._probes.close)
        self._probes.cursor().execute("LISTEN bus_alt_connection")

    def _connect(self, stack: contextlib.ExitStack, dbname: str):
        connection = psycopg2.connect(**self.whole.pooled._asdict(), dbname=dbname)
        stack.callback(connection.close)
        connection.autocommit = True
        return connection

    def probes(self) -> int:
        """Return how many probes were sent since this was asked last."""
        self._probes.poll()
        number = len(self._probes.notifies)
        self._probes.notifies.clear()
        return number

    def connections(self) -> tuple:
        """Return how many of PostgreSQL's connections are listeners', and how many pooled."""
        ((listeners, others),) = self.whole.postgres.execute(
            "SELECT count(*) FILTER (WHERE application_name LIKE '%%-listener'),"
            " count(*) FILTER (WHERE application_name NOT LIKE '%%-listener')"
            " FROM pg_stat_activity WHERE usename = %s",
            [ROLE],
        )
        return listeners, others

    def cpu(self) -> tuple:
        """Return the seconds of CPU that PostgreSQL, and all Odoo servers, have used."""
        postgres = cpu_of(psutil.Process(self.whole.postgres.process.pid))
        return postgres, sum(cpu_of(psutil.Process(odoo.process.pid)) for odoo in self.odoos)

    def send(self, kill: bool) -> tuple:
        """Send one notification to each server's websockets.

        :param kill: all listeners first
        :return: seconds until the last websocket has it; how many have it, and how many not once
        """
        self._sent += 1
        begin = time.monotonic()
        if kill:
            self.whole.postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE '%-listener'"
            )
        text = f"message {self._sent}."
        for odoo, rows in zip(self.odoos, self._rows):
            self._send(odoo, rows, text)
        arrivals = [crowd.arrivals(text, 1, 60).get(text, []) for crowd in self.crowds]
        wrong = sum(abs(crowd.number - len(mine)) for crowd, mine in zip(self.crowds, arrivals))
        last = max((when for mine in arrivals for when in mine), default=float("inf"))
        return last - begin, sum(map(len, arrivals)), wrong

    def _send(self, odoo: Odoo, rows, text: str):
        channel = series.bus_channel(odoo.database, CHANNEL)
        rows.cursor().execute(
            "INSERT INTO bus_bus (channel, message, create_date)"
            " VALUES (%s, %s, now() AT TIME ZONE 'UTC')",
            [channel, series.message(text)],
        )
        self._notify.cursor().execute("SELECT pg_notify('imbus', %s)", [f"[{channel}]"])


def cpu_of(process: psutil.Process) -> float:
    """Return the seconds of CPU of a server and its processes, also of those that ended."""
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return total


def measure(fleet: Fleet, minutes: float) -> list[Table]:
    number = len(fleet.odoos)
    websockets = sum(crowd.number for crowd in fleet.crowds)
    rested = probes = 0
    most = (0, 0)
    spent = [0.0, 0.0]
    sent: dict[bool, list] = {False: [], True: []}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(CALM)
        fleet.probes()
        before, begin = fleet.cpu(), time.monotonic()
        time.sleep(REST)
        rested += time.monotonic() - begin
        spent = [total + b - a for total, a, b in zip(spent, before, fleet.cpu())]
        probes += fleet.probes()
        most = max(most, fleet.connections(), key=sum)
        for kill, rounds in sent.items():
            rounds.append(fleet.send(kill))
    rest = Table(
        "A fleet at rest",
        f"{number} Odoo servers (threaded, 1 cron thread), {websockets} websockets,"
        f" {rested:.0f} s in which nothing happens. CPU in % of one core.",
        ["probes", "listeners", "pooled", "CPU of PostgreSQL", "CPU of an Odoo, all in all"],
    )
    rest.add(
        f"{probes / rested:.2f}/s",
        *most,
        f"{100 * spent[0] / rested:.2f} %",
        f"{100 * spent[1] / rested / number:.2f} %",
    )
    killed = Table(
        "All listeners of a fleet are killed",
        f"One notification to each server's websockets, {len(sent[True])} times: seconds until the"
        f" last of {websockets} has it; and the same right after all listeners were killed.",
        ["", "median", "at most", "websockets that have it", "lost or twice"],
    )
    for kill, rounds in sent.items():
        times, have, wrong = zip(*rounds)
        took = f"{statistics.median(times):.2f} s", f"{max(times):.2f} s"
        killed.add("killed" if kill else "heard", *took, min(have), sum(wrong))
    return [rest.show(), killed.show()]


def alone(seconds: float) -> Table:
    """Measure listeners in a process of their own."""
    table = Table(
        "What a listener costs",
        f"So many listeners in one process without Odoo hear nothing but probes for {seconds:g} s.",
        ["listeners", "probes", "CPU of each"],
    )
    for number in LISTENERS:
        row = idle(number, seconds)
        each = 100 * row["cpu"] / seconds / number
        table.add(number, f"{row['probes'] / seconds:.2f}/s", f"{each:.3f} %")
    return table.show()


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench fleet", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of the whole fleet")
    parser.add_argument("--servers", type=int, default=10)
    parser.add_argument("--websockets", type=int, default=50, help="of each server")
    options = parser.parse_args(arguments)
    with deployment(options=POSTGRESQL) as whole, contextlib.ExitStack() as stack:
        print(results.machine(whole).replace(" prefork", ""), flush=True)
        fleet = Fleet(whole, options.servers, options.websockets, stack)
        measure(fleet, options.minutes)
    alone(60)
