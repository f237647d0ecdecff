"""``./run faults --cluster``: what each fault of a Patroni cluster costs two Odoo servers.

Ends with 1 where a figure is not what it must be. Both servers run in prefork mode on one
database, set as the guide's recipe for Patroni has it. With one notification every 100 ms before,
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

from .faults import BACK_FROM_SILENCE, CHANNEL, Job, Messages, chosen, ours, seconds, wrongly
from .stack.client import BusClient
from .stack.cluster import Cluster, Member, cluster
from .stack.network import enter_own_network
from .stack.odoo import Odoo
from .stack.process import end_on_signals, wait_until
from .stack.users import AtOnce

SERVERS, WORKERS = 2, 2

# what must be, in seconds after the promotion
BACK = 3
CRON = 5

HERE = 0  # this machine, for ``Lan.cut``


class Promotions(AtOnce):
    """Notes when a member becomes the primary, or the primary is back after a restart.

    ``gone`` is set once the first primary is none any more, or not the only one.
    """

    def __init__(self, whole: Cluster):
        self.seen: list[tuple] = []  # (monotonic, s; name of the member)
        self.gone = threading.Event()
        super().__init__(*(functools.partial(self._watch, member) for member in whole.members))

    def _watch(self, member: Member):
        last = member.primary_since()
        while not self._stop.wait(0.05):
            since = member.primary_since()
            if since not in (None, last):
                self.seen.append((time.monotonic(), member.name))
                self.gone.set()
            if last and since != last:
                self.gone.set()
            # a demoted server restarts, so the same start is the same term
            last = since or last


class Visitor(AtOnce):
    """Asks a server for a page, over and over, as a context."""

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
    wait_until(lambda: seen.seen, "somebody is promoted", seconds)


def switchover(whole: Cluster, _seen: Promotions):
    leader, candidate = whole.primary().name, whole.standby().name
    whole.patronictl(
        "switchover", "odoo", f"--leader={leader}", f"--candidate={candidate}", "--force"
    )


def postmaster_killed(whole: Cluster, seen: Promotions):
    os.kill(whole.primary().postmaster(), signal.SIGKILL)
    promoted(seen)


def _cut_off(whole: Cluster, seen: Promotions, clients: list):
    one = whole.number(whole.primary())
    whole.lan.cut(one, [*clients, *({1, 2, 3} - {one})])
    promoted(seen)
    time.sleep(20)
    whole.lan.plug()


def cut_off(whole: Cluster, seen: Promotions):
    """The other machines do not reach the primary any more, but Odoo does."""
    _cut_off(whole, seen, [])


def machine_gone(whole: Cluster, seen: Promotions):
    """Nobody reaches the primary any more; no packet tells so."""
    _cut_off(whole, seen, [HERE])


def patroni_hangs(whole: Cluster, seen: Promotions):
    """Nobody ends the old primary: it goes on to take connections beside the new one."""
    primary = whole.primary()
    os.kill(primary.process.pid, signal.SIGSTOP)
    try:
        promoted(seen)
        time.sleep(40)
    finally:
        os.kill(primary.process.pid, signal.SIGCONT)


def etcd_lost(whole: Cluster, seen: Promotions):
    """Patroni gives the primary up; it takes it up again once etcd is back."""
    for etcd in whole.etcd:
        etcd.stop(signal.SIGKILL)
    members = whole.members
    wait_until(lambda: not any(one.primary_since() for one in members), "nobody is primary", 60)
    time.sleep(5)
    for etcd in whole.etcd:
        etcd.start()
    promoted(seen)


@dataclasses.dataclass
class Fault:
    """A row of the table.

    :param silent: nothing tells Odoo
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


class Watched:
    """A cluster, and the Odoo servers on it."""

    def __init__(self, whole: Cluster, servers: list[Odoo]):
        self.whole, self.servers = whole, servers
        self.count = 0  # of measures, so that none takes another one's messages for its own

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
            self.whole.wait()
            return self._scenario(fault, messages, job, clients)

    def _scenario(self, fault, messages, job, clients) -> dict:
        before = self.whole.primary().name
        lines = [len(ours(odoo)) for odoo in self.servers]
        visitors = [Visitor(odoo) for odoo in self.servers]
        with contextlib.ExitStack() as meanwhile:
            for context in (messages, *visitors):
                meanwhile.enter_context(context)
            seen = meanwhile.enter_context(Promotions(self.whole))
            time.sleep(1)
            begun = time.monotonic()
            job.start(f"second {self.count}", seen.gone)
            fault.happens(self.whole, seen)
            promoted(seen)
            time.sleep(5)
        everything = set(messages.committed)
        for client in clients:
            with contextlib.suppress(TimeoutError):
                wait_until(lambda c=client: everything <= set(c.texts()), "all shown", 30)
        job.wait()
        at, after = seen.seen[0]
        rows = [self._shown(client, messages.committed, begun, at) for client in clients]
        return {
            "sent": len(messages.committed),
            "lost": len(set().union(*(row["lost"] for row in rows))),
            "twice": sum(row["twice"] for row in rows),
            "promoted": at - begun,
            "back": max((row["back"] for row in rows), default=None),
            "cron": max(0.0, job.started - at) if job.started else None,
            "pages": sum(visitor.asked for visitor in visitors),
            "failed": sum(visitor.failed for visitor in visitors),
            "who": f"{before} → {after}",
            "text": [
                line for odoo, first in zip(self.servers, lines) for line in ours(odoo)[first:]
            ],
        }

    @staticmethod
    def _shown(client, committed: dict, begun: float, promoted: float) -> dict:
        arrived = client.received
        shown = dict(reversed(arrived))
        late = [
            at - promoted
            for text, at in shown.items()
            if at >= promoted and committed.get(text, 0) >= begun
        ]
        return {
            "lost": set(committed) - set(shown),
            "twice": len(arrived) - len(shown),
            "back": min(late, default=float("inf")),
        }


def wrong(fault: Fault, row: dict) -> list[str]:
    """Return the names of the figures that are not what they must be."""
    back = BACK_FROM_SILENCE if fault.silent else BACK
    cron = BACK_FROM_SILENCE if fault.silent else CRON
    fine = {
        "lost": row["lost"] == 0,
        "twice": row["twice"] == 0,
        "back": row["back"] <= back,
        "cron": row["cron"] is not None and row["cron"] <= cron,
        "lines": not any("Traceback" in line for line in row["text"]),
    }
    return [name for name, good in fine.items() if not good]


HEAD = (
    f"{'fault':<20}{'primary':<13}{'sent':>6}{'lost':>6}{'twice':>7}{'promoted s':>12}{'back s':>8}"
    f"{'cron s':>8}{'pages':>7}{'failed':>8}"
)


def line_of(fault: Fault, row: dict, mistakes: list[str]) -> str:
    return (
        f"{fault.name:<20}{row['who']:<13}{row['sent']:>6}{row['lost']:>6}{row['twice']:>7}"
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
    failed = False
    with cluster() as whole, contextlib.ExitStack() as stack:
        cron = {"max_cron_threads": 1}
        servers = stack.enter_context(whole.odoo(SERVERS, workers=WORKERS, options=cron))
        watched = Watched(whole, servers)
        print(f"two prefork servers, a Patroni cluster of two\n\n{HEAD}", flush=True)
        for fault in FAULTS:
            if not arguments.faults or fault.name in arguments.faults:
                row = watched.measure(fault)
                mistakes = wrong(fault, row)
                failed = failed or bool(mistakes)
                print(line_of(fault, row, mistakes), flush=True)
                if arguments.verbose or mistakes:
                    print("\n".join(row["text"]), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
