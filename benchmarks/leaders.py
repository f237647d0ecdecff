"""``./run bench leaders``: the process that leads is killed, again and again; or stopped."""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import threading
import time
from collections import defaultdict

import psutil

from tests.odoo.conftest import Site, running
from tests.odoo.test_lead import leader, ready
from tests.stack.deployment import running_deployment
from tests.stack.odoo import Sender
from tests.stack.process import wait_until

from .crowd import Crowd
from .measures import CHANNEL
from .results import Table

PAUSE = 1.0  # seconds between messages: 200 websockets take Odoo 0.3 s for each
PREFIX = "message "


class Stream(threading.Thread):
    """Sends a message every second; ``sent`` has when each was committed (monotonic)."""

    def __init__(self, site: Site):
        super().__init__(daemon=True)
        self._sender, self._end = Sender(site.odoo), threading.Event()
        self.sent: dict[str, float] = {}

    def run(self):
        while not self._end.wait(PAUSE):
            text = f"{PREFIX}{len(self.sent)}."
            self.sent[text] = self._sender.send(CHANNEL, text)["committed"]

    @property
    def last(self) -> str:
        return next(reversed(self.sent))

    def wait(self):
        """Wait until some more are sent."""
        number = len(self.sent)
        wait_until(lambda: len(self.sent) > number + 1, "some messages", 60)

    def stop(self):
        self._end.set()
        self.join()
        self._sender.close()


def kill(site: Site) -> tuple[str, float, float]:
    """Kill the leader; return what it was, when, and the seconds until a job began."""
    wait_until(lambda: ready(site), "ready", 60)
    process: psutil.Process = leader(site)
    kind = "gevent process" if "gevent" in process.cmdline() else "cron worker"
    killed = time.monotonic()
    process.kill()
    if not site.starts(30):
        raise TimeoutError("no job began within 30 s")
    job = time.monotonic() - killed
    wait_until(lambda: leader(site) != process, "another one leads", 30)
    return kind, killed, job


def measure(site: Site, crowd: Crowd, kills: int) -> Table:
    stream, found = Stream(site), []
    stream.start()
    try:
        for number in range(kills):
            stream.wait()
            crowd.arrivals(stream.last, 1, 60)  # all websockets are there again
            kind, killed, job = kill(site)
            found.append((kind, killed, job))
            print(f"  {number + 1} of {kills}: {kind}, job after {job:.2f} s", flush=True)
        stream.wait()
    finally:
        stream.stop()
    arrivals = crowd.arrivals(PREFIX, len(stream.sent), 60)
    counts = [len(arrivals.get(text, [])) for text in stream.sent]
    lost = sum(max(0, crowd.number - count) for count in counts)
    twice = sum(max(0, count - crowd.number) for count in counts)
    shown, jobs = defaultdict(list), defaultdict(list)
    for kind, killed, job in found:
        after = [text for text, when in stream.sent.items() if when > killed]
        if after and after[0] in arrivals:
            shown[kind].append(max(arrivals[after[0]]) - stream.sent[after[0]])
        jobs[kind].append(job)
    table = Table(
        f"The process that leads is killed (SIGKILL) {kills} times",
        f"{crowd.number} websockets, a message each {PAUSE:g} s ({len(stream.sent)} in all: {lost}"
        f" lost, {twice} twice), a cron job triggered at each kill. Seconds until the next message"
        " was at all websockets, and until the job began. With the gevent process its websockets"
        " end; they wait for a new one.",
        ["", "kills", "message, median", "at most", "job, median", "at most"],
    )
    for kind in jobs:
        times = [
            f"{how(values):.2f} s"
            for values in (shown[kind], jobs[kind])
            for how in (statistics.median, max)
        ]
        table.add(kind, len(jobs[kind]), *times)
    return table


def others_listen(site: Site, pid: int) -> bool:
    """Tell whether another process than this one has a direct connection."""
    return any(name.split("-")[1] != str(pid) for _pid, name, _port in site.postgres.listeners())


def stopped(site: Site, crowd: Crowd, seconds: float) -> Table:
    """Stop a cron worker that leads (SIGSTOP) for so many seconds; the gevent process follows."""
    while "gevent" in leader(site).cmdline():
        kill(site)
    wait_until(lambda: ready(site), "ready", 60)
    process, stream = leader(site), Stream(site)
    stream.start()
    try:
        stream.wait()
        crowd.arrivals(stream.last, 1, 60)
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        try:
            wait_until(lambda: others_listen(site, process.pid), "another one leads", 120)
            job = site.starts(60)
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
        finally:
            # Odoo's master kills a worker that is silent for limit_time_real, 120 s
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        stream.wait()
    finally:
        stream.stop()
    arrivals = crowd.arrivals(PREFIX, len(stream.sent), 60)
    counts = [len(arrivals.get(text, [])) for text in stream.sent]
    late = [
        max(arrivals[text]) - sent
        for text, sent in stream.sent.items()
        if sent > begun and text in arrivals
    ]
    table = Table(
        f"The process that leads is stopped (SIGSTOP) for {seconds:g} s",
        f"{crowd.number} websockets, a message each {PAUSE:g} s. Seconds until all had it.",
        ["messages", "lost", "twice", "the latest", "the last ten", "a job began"],
    )
    table.add(
        len(stream.sent),
        sum(max(0, crowd.number - count) for count in counts),
        sum(max(0, count - crowd.number) for count in counts),
        f"{max(late):.1f} s",
        f"{max(late[-10:]):.2f} s",
        "yes" if job else "no",
    )
    return table


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench leaders", description=__doc__)
    parser.add_argument("--websockets", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stop", type=float, metavar="SECONDS", help="stop it so long, once")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        whole = stack.enter_context(running_deployment())
        own = {**whole.direct_settings, "max_cron_threads": 2}
        site = stack.enter_context(running(whole, workers=2, options=own))
        wait_until(lambda: ready(site), "ready", 60)
        crowd = stack.enter_context(Crowd(site.odoo, CHANNEL, options.websockets))
        if options.stop:
            stopped(site, crowd, options.stop).show()
        else:
            measure(site, crowd, options.kills).show()
