"""What a commit costs while its NOTIFY cannot be sent, and what is shown of it afterwards."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time

from tests.stack.client import BusClient
from tests.stack.deployment import Deployment
from tests.stack.odoo import CHECKOUT, NotCommitted, Sender
from tests.stack.pgbouncer import PgBouncer
from tests.stack.process import die_with_parent, wait_until

from .results import Table, milliseconds
from .setups import Server, Setup

CHANNEL = "outage"
EACH = 0.05  # seconds between two commits


def paused(pooler: PgBouncer):
    pooler.admin("PAUSE")
    time.sleep(4)
    pooler.admin("RESUME")


def restarted(pooler: PgBouncer):
    pooler.stop()
    pooler.start()


def stopped(pooler: PgBouncer):
    pooler.stop()
    time.sleep(10)
    pooler.start()


FAULTS = {"paused for 4 s": paused, "restarted": restarted, "stopped for 10 s": stopped}


class ServerWithSystemPooler:
    """A server whose system database is behind another PgBouncer, ``system``, which can fail."""

    def __init__(self, setup: Setup, deployment: Deployment, stack: contextlib.ExitStack):
        number = len(list(deployment.folder.glob("system-*.log")))
        folder = deployment.folder / f"system-{number}"
        self.system = PgBouncer(folder, deployment.postgres, deployment.pgbouncer.passwords).start()
        stack.callback(self.system.stop)
        where = f"host={self.system.host} port={self.system.port}"
        if setup.aliases:  # a session pool has to stay one behind this pooler
            local = folder / "local.ini"
            local.write_text(local.read_text().replace("* = ", "* = pool_mode=session ", 1))
            self.system.admin("RELOAD")
        self.server: Server = setup.start(deployment, stack, system=where)
        self.sender = Sender(self.server.odoo)
        stack.callback(self.sender.close)
        self.client = stack.enter_context(BusClient(self.server.odoo, CHANNEL))
        self.sender.send(CHANNEL, "the first")
        time.sleep(1)

    def during(self, fault) -> tuple:
        """Return what the NOTIFY added to the slowest commit (s); the numbers of commits that
        failed, of all, of those that were never shown; and how late the last was (s).
        """
        took, failed, sent, stop = [], [], {}, threading.Event()

        def commits():
            while not stop.wait(EACH):
                text, begin = f"{fault.__name__} {len(sent)}", time.monotonic()
                sent[text] = begin
                try:
                    times = self.sender.send(CHANNEL, text)
                    took.append(times["end"] - times["committed"])
                except NotCommitted:
                    failed.append(text)
                    took.append(time.monotonic() - begin)

        thread = threading.Thread(target=commits)
        thread.start()
        time.sleep(1)
        fault(self.system)
        back = time.monotonic()
        time.sleep(1)
        stop.set()
        thread.join()
        shown: dict = {}
        if self.server.setup.hears:
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: set(sent) <= set(self.client.texts()), "all", 15)
            shown = dict(self.client.received)
        meanwhile = [text for text in shown if sent.get(text, back) < back]
        late = max((shown[text] - back for text in meanwhile), default=0.0)
        lost = sum(text not in shown for text in sent)
        return max(took), len(failed), len(sent), lost, max(0.0, late)


def outages(setups: list[Setup], deployment: Deployment) -> Table:
    """Pause, restart and stop the pooler of the system database, and of nothing else."""
    table = Table(
        "The pooler of the system database fails",
        f"One commit with a notification each {EACH * 1000:.0f} ms. its NOTIFY: the most that it"
        " added to a commit. failed: the user got an error. never shown: not within 15 s after the"
        " last commit. at last: after the pooler's return, until all were shown that were committed"
        " before it.",
        ["", "", "its NOTIFY", "failed", "never shown", "at last"],
    )
    for setup in setups:
        if not setup.pooled:
            continue
        with contextlib.ExitStack() as stack:
            server = ServerWithSystemPooler(setup, deployment, stack)
            for name, fault in FAULTS.items():
                if fault is paused and setup.aliases:
                    continue  # PAUSE waits for the end of each session, and so for the listeners'
                slowest, failed, sent, lost, late = server.during(fault)
                table.add(
                    setup.name,
                    name,
                    milliseconds(slowest),
                    f"{failed} of {sent}",
                    lost if setup.hears else "all: it hears nothing",
                    f"{late:.1f} s" if setup.hears and not lost else "-",
                )
                time.sleep(2)
                print(table.lines()[-1], flush=True)
    return table.show()


def few_places(setups: list[Setup], deployment: Deployment) -> Table:
    """Let five processes commit in turn behind a session pool with three server connections."""
    table = Table(
        "Five processes, three places of a session pool",
        "Each commits five notifications in turn; query_wait_timeout is 8 s.",
        ["", "slowest commit", "failed"],
    )
    system = "pool_mode=session pool_size=3"
    for setup in setups:
        if not setup.pooled:
            continue
        with contextlib.ExitStack() as stack:
            server = setup.start(deployment, stack, start=False, system=system)
            server.pooler.admin("SET query_wait_timeout = 8")
            senders = [Sender(server.odoo) for _i in range(5)]
            for sender in senders:
                stack.callback(sender.close)
            took, failed = [], 0
            for i in range(25):
                begin = time.monotonic()
                try:
                    senders[i % 5].send(CHANNEL, "x")
                except NotCommitted:
                    failed += 1
                took.append(time.monotonic() - begin)
            table.add(setup.name, milliseconds(max(took)), f"{failed} of {len(took)}")
    return table.show()


def dying(setups: list[Setup], deployment: Deployment, number: int) -> Table:
    """Kill processes right after their commit, and count the NOTIFY that PostgreSQL got."""
    table = Table(
        "Killed right after the commit",
        f"{number} processes, forked as Odoo's workers are, commit one notification, rest, commit"
        " another and send SIGKILL to themselves. heard: how many of the latter were.",
        ["", "heard"],
    )
    for setup in setups:
        with contextlib.ExitStack() as stack:
            subscriber = stack.enter_context(contextlib.closing(deployment.postgres.connect()))
            subscriber.cursor().execute("LISTEN imbus")
            odoo = setup.start(deployment, stack, start=False).odoo
            subprocess.run(
                [odoo.python, "-m", "benchmarks.dying", odoo.conf, odoo.database, str(number)],
                cwd=CHECKOUT,
                env=odoo.suite_environ(),
                check=True,
                stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
            time.sleep(1)
            subscriber.poll()
            payloads = [json.loads(notification.payload) for notification in subscriber.notifies]
            heard = {channel[-1] for channels in payloads for channel in channels}
            count = sum(f"second {i}" in heard for i in range(number))
            table.add(setup.name, f"{count} of {number}")
    return table.show()
