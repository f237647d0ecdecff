"""``./run faults --cluster``: what each fault of a Patroni cluster costs two Odoo servers.

Ends with 1 where a figure is not what it must be. Both servers run in prefork mode on one
database, set as the recipe of docs/patroni.rst has it. With one notification every 100 ms before,
while and after the fault:

* committed, shown by neither or by one server alone (lost), shown twice;
* seconds from the promotion until both servers had shown one;
* seconds from the promotion until a cron job that was triggered meanwhile started;
* pages asked for meanwhile, and those that failed;
* which member was the primary before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import requests

from .faults import (
    BACK_FROM_SILENCE,
    CHANNEL,
    Job,
    Messages,
    addon_lines,
    at_most,
    chosen,
    delivery,
    out_of_limits,
    report,
    seconds,
    wrongly,
)
from .stack.client import BusClient
from .stack.cluster import Cluster, Member, running_cluster
from .stack.network import enter_own_network
from .stack.odoo import Odoo
from .stack.process import end_on_signals, wait_until
from .stack.users import BackgroundThreads

SERVERS, WORKERS = 2, 2

# limits, in seconds after the promotion
BACK = 3
CRON = 5

HERE = 0  # this machine, for ``Lan.cut``


class Promotions(BackgroundThreads):
    """Records when a member becomes the primary, or the primary is back after a restart.

    ``gone`` is set once the first primary is down or demoted, or another member is primary, too.
    """

    def __init__(self, cluster: Cluster):
        self.seen: list[tuple] = []  # (monotonic, s; name of the member)
        self.gone = threading.Event()
        super().__init__(*(functools.partial(self._watch, member) for member in cluster.members))

    def _watch(self, member: Member):
        last = member.primary_since()
        while not self._stop.wait(0.05):
            since = member.primary_since()
            if since not in (None, last):
                self.seen.append((time.monotonic(), member.name))
                self.gone.set()
            if last and since != last:
                self.gone.set()
            # a demoted server restarts: while the start time is the same, it has not been demoted
            last = since or last


class Visitor(BackgroundThreads):
    """Requests a page of a server over and over, as a context."""

    def __init__(self, odoo: Odoo):
        self.asked = self.failed = 0
        self._url = f"{odoo.url}/web/login"
        super().__init__(self._visit)

    def _visit(self):
        while not self._stop.wait(0.2):
            self.asked += 1
            try:
                self.failed += not requests.get(self._url, timeout=30).ok
            except requests.RequestException:
                self.failed += 1


def promoted(seen: Promotions, seconds: float = 90):
    wait_until(lambda: seen.seen, "a member is promoted", seconds)


def switchover(cluster: Cluster, _seen: Promotions):
    leader, candidate = cluster.primary().name, cluster.standby().name
    cluster.patronictl(
        "switchover", "odoo", f"--leader={leader}", f"--candidate={candidate}", "--force"
    )


def postmaster_killed(cluster: Cluster, seen: Promotions):
    os.kill(cluster.primary().postmaster(), signal.SIGKILL)
    promoted(seen)


def _cut_off(cluster: Cluster, seen: Promotions, clients: list):
    number = cluster.number(cluster.primary())
    cluster.lan.cut(number, [*clients, *({1, 2, 3} - {number})])
    promoted(seen)
    time.sleep(20)
    cluster.lan.plug()


def cut_off(cluster: Cluster, seen: Promotions):
    """The primary is cut off from the other machines, but not from Odoo."""
    _cut_off(cluster, seen, [])


def machine_gone(cluster: Cluster, seen: Promotions):
    """All packets from and to the primary are dropped."""
    _cut_off(cluster, seen, [HERE])


def patroni_hangs(cluster: Cluster, seen: Promotions):
    """Patroni does not stop the old primary: it accepts connections beside the new one."""
    primary = cluster.primary()
    os.kill(primary.process.pid, signal.SIGSTOP)
    try:
        promoted(seen)
        time.sleep(40)
    finally:
        os.kill(primary.process.pid, signal.SIGCONT)


def etcd_lost(cluster: Cluster, seen: Promotions):
    """Patroni demotes the primary, and promotes it again once etcd is back."""
    for etcd in cluster.etcd:
        etcd.stop(signal.SIGKILL)
    members = cluster.members
    wait_until(lambda: not any(m.primary_since() for m in members), "no member is primary", 60)
    time.sleep(5)
    for etcd in cluster.etcd:
        etcd.start()
    promoted(seen)


@dataclasses.dataclass
class Fault:
    """A row of the table.

    :param silent: no error reaches Odoo
    """

    name: str
    happens: Callable[[Cluster, Promotions], None]
    silent: bool = False


FAULTS = (
    Fault("switchover", switchover),
    Fault("postmaster killed", postmaster_killed),
    Fault("primary cut off", cut_off),
    Fault("etcd lost", etcd_lost),
    Fault("machine gone", machine_gone, silent=True),
    Fault("Patroni hangs", patroni_hangs, silent=True),
)


class ClusterFaults:
    """A cluster and its Odoo servers, on which faults are measured."""

    def __init__(self, cluster: Cluster, servers: list[Odoo]):
        self.cluster, self.servers = cluster, servers
        self.count = 0  # of measurements: a part of their messages' names, which have to differ

    def measure(self, fault: Fault) -> dict:
        """Let the fault happen and return a row of the table."""
        self.count += 1
        with contextlib.ExitStack() as stack:
            messages = Messages(self.servers[0], f"{fault.name} ")
            stack.callback(messages.close)
            job = Job(*self.servers)
            stack.callback(job.close)
            clients = [stack.enter_context(BusClient(odoo, CHANNEL)) for odoo in self.servers]
            messages.send(f"first {self.count}")
            for client in clients:
                client.wait_for(f"first {self.count}")
            # loads the registry
            job.start(f"first {self.count}")
            job.wait()
            self.cluster.wait()
            return self._scenario(fault, messages, job, clients)

    def _scenario(self, fault, messages, job, clients) -> dict:
        before = self.cluster.primary().name
        lines = [len(addon_lines(odoo)) for odoo in self.servers]
        visitors = [Visitor(odoo) for odoo in self.servers]
        with contextlib.ExitStack() as meanwhile:
            for context in (messages, *visitors):
                meanwhile.enter_context(context)
            seen = meanwhile.enter_context(Promotions(self.cluster))
            time.sleep(1)
            begun = time.monotonic()
            job.start(f"second {self.count}", seen.gone)
            fault.happens(self.cluster, seen)
            promoted(seen)
            time.sleep(5)
        committed = set(messages.committed)
        for client in clients:
            with contextlib.suppress(TimeoutError):
                wait_until(lambda c=client: committed <= set(c.texts()), "all shown", 30)
        job.wait()
        at, after = seen.seen[0]
        rows = [delivery(client.received, messages.committed, begun, at) for client in clients]
        backs = [row["back"] for row in rows]
        return {
            "sent": len(messages.committed),
            "lost": len(set().union(*(row["lost"] for row in rows))),
            "twice": sum(row["twice"] for row in rows),
            "promoted": at - begun,
            "back": None if None in backs else max(backs),
            "cron": max(0.0, job.started - at) if job.started else None,
            "pages": sum(visitor.asked for visitor in visitors),
            "failed": sum(visitor.failed for visitor in visitors),
            "primary": f"{before} → {after}",
            "text": [
                line
                for odoo, first in zip(self.servers, lines)
                for line in addon_lines(odoo)[first:]
            ],
        }


def wrong(fault: Fault, row: dict) -> list[str]:
    """Return the names of the figures that are out of their limits."""
    back = BACK_FROM_SILENCE if fault.silent else BACK
    cron = BACK_FROM_SILENCE if fault.silent else CRON
    within = {"back": at_most(row["back"], back), "cron": at_most(row["cron"], cron)}
    return out_of_limits(row, within)


HEAD = (
    f"{'fault':<20}{'primary':<13}{'sent':>6}{'lost':>6}{'twice':>7}{'promoted s':>12}{'back s':>8}"
    f"{'cron s':>8}{'pages':>7}{'failed':>8}"
)


def line_of(fault: Fault, row: dict, mistakes: list[str]) -> str:
    return (
        f"{fault.name:<20}{row['primary']:<13}{row['sent']:>6}{row['lost']:>6}{row['twice']:>7}"
        f"{seconds(row['promoted']):>12}{seconds(row['back']):>8}{seconds(row['cron']):>8}"
        f"{row['pages']:>7}{row['failed']:>8}" + wrongly(mistakes)
    )


def main():
    parser = argparse.ArgumentParser(
        prog="./run faults --cluster", description=__doc__.splitlines()[0]
    )
    arguments = chosen(parser, [fault.name for fault in FAULTS])
    enter_own_network("tests.cluster")
    end_on_signals()
    with running_cluster() as cluster, contextlib.ExitStack() as stack:
        cron = {"max_cron_threads": 1}
        servers = stack.enter_context(
            cluster.odoo(SERVERS, arguments.auto, workers=WORKERS, options=cron)
        )
        faults = ClusterFaults(cluster, servers)
        print(f"two prefork servers, a Patroni cluster of two\n\n{HEAD}", flush=True)
        failed = report(FAULTS, arguments, faults.measure, wrong, line_of)
    sys.exit(failed)


if __name__ == "__main__":
    main()
