"""``./run bench rivals``: every way to run Odoo behind PgBouncer, beside Odoo without it.

All servers run at once on one PostgreSQL, prefork, each with a database and a PgBouncer of its
own, and are measured in turn:

* commit: how long Odoo's commit of a notification takes;
* frame: from there to the websocket's frame;
* kill: one notification every 0.5 s, the listener's backend is killed: how long until one
  that was sent after that is shown, and how many never are;
* cron: from the commit that triggers a cron job to its start;
* backends: PostgreSQL's connections at rest, by number of HTTP workers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
import zipfile

from tests.stack import series
from tests.stack.client import BusClient
from tests.stack.deployment import Deployment, deployment
from tests.stack.odoo import CHECKOUT, ROLE, Sender
from tests.stack.pgbouncer import PgBouncer
from tests.stack.process import CACHE, wait_until

CHANNEL = "benchmark"
WARM_UP = 10
PAUSE = 0.02  # seconds, in which the servers come to rest
AFTER_KILL = 60  # seconds; stock Odoo waits 50 after an error
EXISTING = "odoo-addon-bus-alt-connection==19.0.1.0.0.2"


@dataclasses.dataclass
class Rival:
    """One way to run Odoo; what it cannot do is left out of what it is asked."""

    name: str
    pooled: bool = True
    aliases: dict = dataclasses.field(default_factory=dict)
    addon: str = ""  # the folder that holds it
    hears: bool = True
    cron: bool = True

    def path(self, whole: Deployment, stack: contextlib.ExitStack):
        """Return where Odoo's own settings lead, through a PgBouncer that nobody else uses."""
        if not self.pooled:
            return whole.straight
        number = len(list(whole.folder.glob("rival-*.log")))
        pooler = PgBouncer(
            whole.folder / f"rival-{number}",
            whole.postgres,
            whole.pgbouncer.passwords,
            aliases=self.aliases,
        ).start()
        stack.callback(pooler.stop)
        return whole.pooled._replace(port=pooler.port)

    def start(
        self, whole: Deployment, stack: contextlib.ExitStack, workers: int = 2, cron: int = 1
    ):
        """Start a server that runs as long as ``stack``."""
        places = {
            "ODOO_IMDISPATCHER_DB_HOST": whole.straight.host,
            "ODOO_IMDISPATCHER_DB_PORT": str(whole.straight.port),
        }
        return stack.enter_context(
            whole.odoo(
                self.path(whole, stack),
                workers=workers,
                addon=bool(self.addon),
                addons_path=f"{series.ADDONS},{self.addon}" if self.addon else series.ADDONS,
                environ=places if self.addon else {},
                options={"max_cron_threads": cron},
            )
        )


def existing_addon() -> str:
    """Return a folder with the addon of the same name that is on PyPI."""
    folder = CACHE / "rivals" / EXISTING
    if not folder.exists():
        made = folder.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        environ = {**os.environ, "PIP_CACHE_DIR": str(CACHE / "pip")}
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", made, EXISTING]
        subprocess.run(pip, check=True, env=environ)
        (wheel,) = made.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(made)
        (made / "odoo" / "addons" / "bus_alt_connection").rename(made / "bus_alt_connection")
        made.rename(folder)
    return str(folder)


def rivals() -> list[Rival]:
    sessions = {"postgres": "postgres pool_mode=session"}
    return [
        Rival("stock, no pooler", pooled=False),
        Rival("stock, PgBouncer", hears=False, cron=False),
        Rival("stock, session pool", aliases=sessions),
        Rival("existing addon", addon=existing_addon(), cron=False),
        Rival("bus_alt_connection", addon=str(CHECKOUT)),
    ]


class Running:
    """A rival's server with a websocket to it and a process that sends."""

    def __init__(self, rival: Rival, whole: Deployment, stack: contextlib.ExitStack):
        self.rival = rival
        self.odoo = rival.start(whole, stack)
        self.sender = Sender(self.odoo)
        stack.callback(self.sender.close)
        self.client = stack.enter_context(BusClient(self.odoo, CHANNEL))
        self.commits: list[float] = []
        self.frames: list[float] = []

    def send(self, text: str):
        time.sleep(PAUSE)
        sent = self.sender.send(CHANNEL, text)
        self.commits.append(sent["end"] - sent["begin"])
        if self.rival.hears:
            self.client.wait_for(text)
            self.frames.append(dict(self.client.received)[text] - sent["begin"])

    def after_kill(self) -> tuple:
        """Return seconds until something is shown, and how much never is."""
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
        return min(times, default=None), sum(text not in shown for text in sent)

    def job(self, name: str) -> float:
        committed = self.sender.trigger(name)["end"]
        wait_until(lambda: series.job_starts(self.odoo.log(), name), name, 120, 0.005)
        return time.monotonic() - committed


def row(name: str, *cells):
    print(f"  {name:<22}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def spread(values: list[float], scale: float = 1000, unit: str = "ms") -> tuple:
    if not values:
        return "-", "-"
    values = sorted(values)
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    return f"{statistics.median(values) * scale:.2f} {unit}", f"{p99 * scale:.2f} {unit}"


def latency(running: list[Running], number: int):
    for i in range(number + WARM_UP):
        for one in random.sample(running, len(running)):
            one.send(f"message {i}")
    print(f"\nOne notification, {number} each, in turn\n")
    row("", "commit p50", "p99", "ratio", "frame p50", "p99", "ratio")
    first = running[0]
    for one in running:
        ratio = statistics.median(one.commits[WARM_UP:]) / statistics.median(
            first.commits[WARM_UP:]
        )
        later = "-"
        if one.frames:
            later = statistics.median(one.frames[WARM_UP:]) / statistics.median(
                first.frames[WARM_UP:]
            )
            later = f"{later:.2f}"
        commit, frame = spread(one.commits[WARM_UP:]), spread(one.frames[WARM_UP:])
        row(one.rival.name, *commit, f"{ratio:.2f}", *frame, later)


def killed(running: list[Running], whole: Deployment):
    whole.postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'postgres' AND usename = %s",
        [ROLE],
    )
    results = {}

    def one_of(one: Running):
        results[one.rival.name] = one.after_kill()

    threads = [threading.Thread(target=one_of, args=[one]) for one in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"\nThe listener's backend killed, one notification every 0.5 s for {AFTER_KILL} s\n")
    row("", "shown after", "never shown")
    for name, (after, lost) in results.items():
        row(name, "never" if after is None else f"{after:.1f} s", lost)


def cron(running: list[Running], number: int):
    print("\nA cron job, from its trigger to its start\n")
    row("", "p50", "max", "jobs")
    for one in running:
        took = [one.job(f"job {i}") for i in range(number if one.rival.cron else 1)]
        row(one.rival.name, f"{statistics.median(took):.2f} s", f"{max(took):.2f} s", len(took))


def backends(sizes: tuple):
    print("\nPostgreSQL's connections at rest: HTTP workers + gevent + 2 cron workers\n")
    row("", *(f"{size} workers" for size in sizes))
    for rival in rivals():
        counted = []
        for size in sizes:
            with deployment() as whole, contextlib.ExitStack() as stack:
                odoo = rival.start(whole, stack, workers=size, cron=2)
                stack.enter_context(BusClient(odoo, CHANNEL))
                for _page in range(4 * size):
                    odoo.answers()
                time.sleep(2)
                ((count,),) = whole.postgres.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]
                )
                counted.append(count)
        row(rival.name, *counted)


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench rivals", description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="notifications to each server")
    number = parser.parse_args(arguments).number
    print(f"Odoo {series.SERIES}, prefork, {os.cpu_count()} cores")
    with deployment() as whole, contextlib.ExitStack() as stack:
        running = [Running(rival, whole, stack) for rival in rivals()]
        latency(running, number)
        killed(running, whole)
        cron(running, 10)
    backends((2, 4, 8))
