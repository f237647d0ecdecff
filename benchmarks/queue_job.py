"""``./run bench queue_job``: OCA's queue_job beside every way to run Odoo behind PgBouncer."""

from __future__ import annotations

import argparse
import contextlib
import select
import statistics
import threading
import time

from tests.stack.deployment import Deployment, running_deployment
from tests.stack.odoo import Sender
from tests.stack.process import wait_until
from tests.stack.wheels import QUEUE_JOB, unpacked

from . import results
from .measures import POSTGRESQL, flat, in_turn
from .results import Table, milliseconds, p99, ratio
from .setups import Server, setups

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


class JobServer:
    """A server, a process that makes jobs, and a session that queries whether they are done."""

    def __init__(self, server: Server, deployment: Deployment, stack: contextlib.ExitStack):
        self.name, self.setup, self.odoo = server.name, server.setup, server.odoo
        self._postgres = deployment.postgres
        self._database = server.odoo.database
        self._sender = Sender(server.odoo)
        stack.callback(self._sender.close)
        self._connection = deployment.postgres.connect(self._database)
        stack.callback(self._connection.close)
        self._connection.cursor().execute("LISTEN queue_job")
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
        cursor = self._connection.cursor()
        while time.monotonic() < deadline:
            cursor.execute(STATE, [made["uuid"]])
            if cursor.fetchone() == ("done",):
                self.done += 1
                return time.monotonic() - made["end"]
            # each change of a job is a NOTIFY
            if not self._connection.notifies:
                select.select([self._connection], [], [], deadline - time.monotonic())
                self._connection.poll()
            self._connection.notifies.clear()
        return None

    def measure(self, number: int):
        took = []
        for i in range(-2, number):
            time.sleep(PAUSE)
            seconds = self._make(PENDING)
            assert seconds is not None, self.odoo.process.tail()
            took += [seconds] * (i >= 0)
        self.blocks.append(took)

    def kill(self):
        """Kill the runner's session, then make a job."""
        ((backend,),) = self._postgres.execute(RUNNER, [self._database])
        self._postgres.execute("SELECT pg_terminate_backend(%s)", [backend])
        self.after_kill.append(self._make(PENDING) or float("inf"))

    def measure_pending(self):
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
    with running_deployment("bus,queue_job", options=POSTGRESQL, others=others) as deployment:
        print(results.machine(deployment), flush=True)
        with contextlib.ExitStack() as stack:
            servers = [
                setup.start(deployment, stack, cron=0, beside="queue_job") for setup in setups()
            ]
            running = [JobServer(server, deployment, stack) for server in servers]
            good = [server for server in running if server.setup.jobs]
            rest = [server for server in running if server not in good]
            waiting = [threading.Thread(target=server.measure_pending) for server in rest]
            for thread in waiting:
                thread.start()
            for thread in waiting:
                thread.join()
            for server in in_turn(good, BLOCKS):
                server.measure(number)
            for server in in_turn(good, KILLS):
                server.kill()
    for server in running:
        done = f"{server.done} of {server.made}"
        if server not in good:
            table.add(server.name, *["pending" if not server.done else "-"] * 4, done)
            continue
        took = flat(server.blocks)
        table.add(
            server.name,
            milliseconds(statistics.median(took)),
            milliseconds(p99(took)),
            ratio(server.blocks, good[0].blocks),
            f"{max(server.after_kill):.1f} s",
            done,
        )
    return table.show()


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench queue_job", description=__doc__)
    parser.add_argument("--number", type=int, default=10, help="jobs in each block")
    measure(parser.parse_args(arguments).number)
