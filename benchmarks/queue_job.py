"""``./run bench queue_job``: OCA's queue_job beside every way to run Odoo behind PgBouncer."""

from __future__ import annotations

import argparse
import contextlib
import select
import statistics
import threading
import time

from tests.stack.deployment import Deployment, deployment
from tests.stack.odoo import Sender
from tests.stack.process import wait_until
from tests.stack.wheels import QUEUE_JOB, unpacked

from . import results
from .measures import POSTGRESQL, flat, in_turn
from .results import Table, milliseconds, p99, ratio
from .rivals import Server, rivals

BLOCKS = 30
PAUSE = 0.02  # seconds, in which the servers come to rest
PENDING = 35  # seconds, after which a job counts as left pending
KILLS = 3
STATE = "SELECT state FROM queue_job WHERE uuid = %s"
# the runner's session is the one that holds its advisory lock, for as long as it lasts
RUNNER = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = %s)
"""


class Jobs:
    """A server, a process that makes jobs, and a session that sees when they are done."""

    def __init__(self, server: Server, whole: Deployment, stack: contextlib.ExitStack):
        self.server, self._postgres = server, whole.postgres
        self._database = server.odoo.database
        self._sender = Sender(server.odoo)
        stack.callback(self._sender.close)
        self._eyes = whole.postgres.connect(self._database)
        stack.callback(self._eyes.close)
        self._eyes.cursor().execute("LISTEN queue_job")
        self.blocks: list[list[float]] = []
        self.after_kill: list[float] = []
        self.done = self.made = 0
        ready = f"queue job runner ready for db {self._database}"
        wait_until(lambda: ready in server.odoo.log(), ready, 60)

    def _make(self, timeout: float) -> float | None:
        """Make a job and return the seconds from its commit's end until it is done, if it is."""
        made = self._sender.delay()
        deadline = made["end"] + timeout
        self.made += 1
        cursor = self._eyes.cursor()
        while time.monotonic() < deadline:
            cursor.execute(STATE, [made["uuid"]])
            if cursor.fetchone() == ("done",):
                self.done += 1
                return time.monotonic() - made["end"]
            # each change of a job is a NOTIFY
            if not self._eyes.notifies:
                select.select([self._eyes], [], [], deadline - time.monotonic())
                self._eyes.poll()
            self._eyes.notifies.clear()
        return None

    def measure(self, number: int):
        took = []
        for i in range(-2, number):
            time.sleep(PAUSE)
            one = self._make(PENDING)
            assert one is not None, self.server.odoo.process.tail()
            took += [one] * (i >= 0)
        self.blocks.append(took)

    def kill(self):
        """Kill the runner's session, then make a job."""
        ((backend,),) = self._postgres.execute(RUNNER, [self._database])
        self._postgres.execute("SELECT pg_terminate_backend(%s)", [backend])
        self.after_kill.append(self._make(PENDING) or float("inf"))

    def wait_in_vain(self):
        for _job in range(3):
            self._make(PENDING / 3)


def measure(number: int) -> Table:
    table = Table(
        "A job of queue_job",
        f"From the commit that makes it until it is done, {BLOCKS * number} in {BLOCKS} blocks in"
        f" turn; where jobs stay pending, 3 within {PENDING} s. after a kill: the runner's session"
        f" is killed, then a job is made, {KILLS} times: the longest. queue_job itself waits 5 s"
        " then.",
        ["", "p50", "p99", "ratio", "after a kill", "done"],
    )
    others = unpacked(*QUEUE_JOB)
    with deployment("bus,queue_job", options=POSTGRESQL, others=others) as whole:
        print(results.machine(whole), flush=True)
        with contextlib.ExitStack() as stack:
            servers = [rival.start(whole, stack, cron=0, beside="queue_job") for rival in rivals()]
            running = [Jobs(server, whole, stack) for server in servers]
            good = [one for one in running if one.server.rival.jobs]
            rest = [one for one in running if one not in good]
            waiting = [threading.Thread(target=one.wait_in_vain) for one in rest]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join()
            for one in in_turn(good, BLOCKS):
                one.measure(number)
            for one in in_turn(good, KILLS):
                one.kill()
    for one in running:
        done = f"{one.done} of {one.made}"
        if one not in good:
            table.add(one.server.name, *["pending" if not one.done else "-"] * 4, done)
            continue
        took = flat(one.blocks)
        table.add(
            one.server.name,
            milliseconds(statistics.median(took)),
            milliseconds(p99(took)),
            ratio(one.blocks, good[0].blocks),
            f"{max(one.after_kill):.1f} s",
            done,
        )
    return table.show()


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench queue_job", description=__doc__)
    parser.add_argument("--number", type=int, default=10, help="jobs in each block")
    measure(parser.parse_args(arguments).number)
