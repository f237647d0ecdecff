"""``./run faults``: what each fault costs; ends with 1 where a figure is not what it must be.

For each fault and each kind of server, with one notification every 100 ms before, while and
after it happens:

* committed, shown in a websocket (14.0: by longpolling), lost, shown twice;
* seconds until one was shown, after the server was back (for a fault without an error that
  reaches Odoo: after it began);
* seconds until a cron job that was triggered meanwhile started, after the server was back;
* lines of the addon in the log, listening backends at the end beyond one per listener;
* seconds that Odoo takes to stop while the fault happens again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

from .stack import series
from .stack.client import BusClient
from .stack.deployment import running_deployment
from .stack.faults import FAULTS, Fault, FaultTarget, fast_stop
from .stack.network import Wire, enter_own_network
from .stack.odoo import CHECKOUT, NotCommitted, Odoo, Sender
from .stack.process import cpu_of, end_on_signals, run_folder, wait_until

MODES = {"threaded": 0, "prefork": 2}
CHANNEL = "a"

# limits, in seconds
BACK = 2
BACK_FROM_SILENCE = 30
STOP = 3
# stock Odoo may take as long: a prefork server checks its workers each 4 s (PreforkServer.beat)
BEAT = 4


class Messages:
    """Sends a message every 100 ms; ``committed`` maps each one to the end of its commit.

    :param name: the prefix of all messages
    """

    def __init__(self, odoo: Odoo, name: str = "message "):
        self.committed: dict[str, float] = {}
        self._name = name
        self._sender = Sender(odoo)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self):
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            self.send(f"{self._name}{number}")

    def send(self, text: str):
        with contextlib.suppress(NotCommitted):
            self.committed[text] = self._sender.send(CHANNEL, text)["end"]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join()

    def close(self):
        self._sender.close()


class Job:
    """Triggers a cron job, as soon as that can be committed, and notes when it starts.

    :param others: more servers on the same database, where it may start as well
    """

    started = None

    def __init__(self, odoo: Odoo, *others: Odoo):
        self._servers = (odoo, *others)
        self._sender = Sender(odoo)
        self._thread = None

    def start(self, name: str, after: threading.Event | None = None):
        """Do so in a thread, after this event."""
        self._thread = threading.Thread(target=self._start, args=[name, after])
        self._thread.start()

    def _start(self, name: str, after: threading.Event | None):
        if after:
            after.wait(75)
        committed = False
        while not committed:
            with contextlib.suppress(NotCommitted):
                self._sender.trigger(name)
                committed = True
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self._starts(name), name, 75)
            self.started = time.monotonic()

    def _starts(self, name: str) -> bool:
        return any(series.job_starts(odoo.log(), name) for odoo in self._servers)

    def wait(self):
        self._thread.join()

    def close(self):
        self._sender.close()


def addon_lines(odoo: Odoo) -> list[str]:
    """Return the addon's lines in the log."""
    return [line for line in odoo.log().splitlines() if ".bus_alt_connection" in line]


def seconds_to_stop(odoo: Odoo) -> float:
    begin = time.monotonic()
    odoo.process.popen.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        odoo.process.popen.wait(60)
    return time.monotonic() - begin


@contextlib.contextmanager
def fault_target(auto: bool = False):
    """A deployment with PostgreSQL at the other end of a wire, unless ``auto``."""
    with run_folder() as folder, contextlib.ExitStack() as stack:
        wire = None
        if not auto:
            # with auto the pooler's own way to PostgreSQL counts, which is a socket beside a wire
            wire = Wire(folder / "wire.log")
            stack.callback(wire.remove)
        target = FaultTarget(stack.enter_context(running_deployment(wire=wire)), wire)
        stack.callback(target.close)
        yield target


def stock_stop(workers: int) -> float:
    """Return how long stock Odoo takes to stop, with PostgreSQL up and no pooler, in seconds."""
    with fault_target() as target:
        cron = {"max_cron_threads": 1}
        direct = target.deployment.direct
        with target.deployment.odoo(direct, addon=False, workers=workers, options=cron) as odoo:
            messages = Messages(odoo)
            with BusClient(odoo, CHANNEL) as client:
                messages.send("first")
                client.wait_for("first")
            messages.send("last")
            time.sleep(1)
            messages.close()
            return seconds_to_stop(odoo)


def delivery(received: list[tuple], committed: dict, begun: float, since: float) -> dict:
    """Return what a client has received of the messages that were committed.

    :param received: as ``BusClient`` has it
    :param begun: when the fault began (monotonic, s)
    :param since: when messages should arrive again (monotonic, s)
    :return: ``shown``, ``lost``: sets of messages; ``twice``: how many; ``back``: seconds after
        ``since`` until a message that was committed after ``begun`` was shown, or None
    """
    shown = dict(reversed(received))
    late = [
        at - since for text, at in shown.items() if at >= since and committed.get(text, 0) >= begun
    ]
    return {
        "shown": set(shown),
        "lost": set(committed) - set(shown),
        "twice": len(received) - len(shown),
        "back": min(late, default=None),
    }


def measure(fault: Fault, workers: int, auto: bool) -> dict:
    """Let the fault happen and return a row of the table."""
    with fault_target(auto) as target, contextlib.ExitStack() as happening:
        options = {**target.settings(fault), "max_cron_threads": 1}
        begun = time.monotonic()
        if fault.at_start:
            happening.enter_context(fault.happens(target))
        with target.deployment.odoo(workers=workers, options=options) as odoo:
            target.database = odoo.database
            messages, job = Messages(odoo), Job(odoo)
            try:
                return scenario(target, odoo, fault, happening, begun, messages, job)
            finally:
                messages.close()
                job.close()


def scenario(target, odoo, fault, happening, begun, messages, job) -> dict:
    number = 1  # for bus and cron

    def listeners():
        return len(target.postgres.listeners())

    with BusClient(odoo, CHANNEL) as client:
        if not fault.at_start:
            wait_until(lambda: listeners() == number, "all listen")
            messages.send("first")
            client.wait_for("first")
            if series.CRON_LISTENS:
                # loads the registry
                job.start("first")
                job.wait()
        with messages:
            time.sleep(1)
            lines = 0 if fault.at_start else len(addon_lines(odoo))
            if not fault.at_start:
                begun = time.monotonic()
                happening.enter_context(fault.happens(target))
            if series.CRON_LISTENS:
                job.start("second")
            time.sleep(fault.seconds)
            happening.close()
            ended = target.back or time.monotonic()
            back = begun if fault.silent else ended
            time.sleep(3)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: set(messages.committed) <= set(client.texts()), "all shown", 20)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: listeners() == number, "all listen again", 70)
        if series.CRON_LISTENS:
            job.wait()
        lines = addon_lines(odoo)[lines:]
        delivered = delivery(client.received, messages.committed, begun, back)
    row = {
        "committed": len(messages.committed),
        "shown": len(delivered["shown"]),
        "lost": len(delivered["lost"]),
        "twice": delivered["twice"],
        "back": delivered["back"],
        "cron": max(0.0, job.started - ended) if job.started else None,
        "lines": len(lines),
        "backends": listeners() - number,
        "text": lines,
    }
    messages.send("last")  # no request waits any more when Odoo stops
    time.sleep(1)
    with (fast_stop if fault.standby else fault.happens)(target):
        time.sleep(2)
        row["stop"] = seconds_to_stop(odoo)
    return row


def idle(number: int, seconds: float) -> dict:
    """Return the cost of listeners without notifications: probes, and seconds of CPU."""
    probes = []
    limit = {"max_connections": number + 80}
    with contextlib.ExitStack() as stack:
        deployment = stack.enter_context(running_deployment(options=limit))
        odoo = stack.enter_context(deployment.odoo(start=False, options=deployment.direct_settings))
        fleet = subprocess.Popen(
            [odoo.python, "-m", "tests.stack.fleet", odoo.conf, str(number), str(seconds)],
            cwd=CHECKOUT,
            env=os.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        with fleet, contextlib.closing(deployment.postgres.connect()) as connection:
            fleet.stdout.readline()
            connection.cursor().execute("LISTEN bus_alt_connection")
            servers = {"postgres": deployment.postgres, "pgbouncer": deployment.pgbouncer}
            before = {name: cpu_of(server.process.pid) for name, server in servers.items()}
            begin = time.monotonic()
            while time.monotonic() < begin + seconds:
                select.select([connection], [], [], 0.2)
                connection.poll()
                probes += connection.notifies
                connection.notifies.clear()
            cpu = {
                name: cpu_of(server.process.pid) - before[name] for name, server in servers.items()
            }
            return {"probes": len(probes), **cpu, **json.loads(fleet.stdout.readline())}


def out_of_limits(row: dict, within: dict[str, bool]) -> list[str]:
    """Return the names of the figures that are out of their limits.

    :param within: whether a figure is within its limit; some have the same limit for every fault
    """
    within = {
        "lost": row["lost"] == 0,
        "twice": row["twice"] == 0,
        **within,
        "lines": not any("Traceback" in line for line in row["text"]),
    }
    return [name for name, good in within.items() if not good]


def wrong(fault: Fault, row: dict, stop: float) -> list[str]:
    """Return the names of the figures that are out of their limits."""
    back = BACK_FROM_SILENCE if fault.silent else BACK
    return out_of_limits(
        row,
        {
            "back": at_most(row["back"], back),
            "cron": not series.CRON_LISTENS or at_most(row["cron"], fault.cron),
            "backends": row["backends"] == 0,
            "stop": row["stop"] <= stop + STOP,
        },
    )


def at_most(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit


def chosen(parser: argparse.ArgumentParser, names: list[str]) -> argparse.Namespace:
    """Return the command line's arguments, with faults of these names."""
    parser.add_argument("--verbose", action="store_true", help="show the lines of the log")
    parser.add_argument("--auto", action="store_true", help="with imdispatcher_db_host = auto")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="only these, by their names")
    arguments = parser.parse_args()
    for name in arguments.faults:
        if name not in names:
            parser.error(f"no fault {name!r}; there are: {', '.join(names)}")
    return arguments


def report(faults: tuple, arguments: argparse.Namespace, measure, wrong, line_of) -> bool:
    """Measure the chosen faults and print a row for each; return whether a figure is wrong.

    :param measure: returns the row of a fault
    :param wrong: returns the names of the wrong figures of a fault and its row
    :param line_of: returns the line to print for a fault, its row and these names
    """
    failed = False
    for fault in faults:
        if not arguments.faults or fault.name in arguments.faults:
            row = measure(fault)
            mistakes = wrong(fault, row)
            failed = failed or bool(mistakes)
            print(line_of(fault, row, mistakes), flush=True)
            if arguments.verbose or mistakes:
                print("\n".join(row["text"]), flush=True)
    return failed


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def wrongly(mistakes: list[str]) -> str:
    """Return the end of a line of the table."""
    return f"   WRONG: {', '.join(mistakes)}" if mistakes else ""


def main():
    parser = argparse.ArgumentParser(prog="./run faults", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, help="only this kind of server")
    arguments = chosen(parser, [fault.name for fault in FAULTS])
    enter_own_network("tests.faults")
    end_on_signals()
    failed = False
    for mode, workers in MODES.items():
        if arguments.mode not in (None, mode):
            continue
        stop = max(stock_stop(workers), BEAT if workers else 0)
        print(
            f"Odoo {series.SERIES}, {mode}; stock Odoo stops within {stop:.1f} s\n\n{HEAD}",
            flush=True,
        )
        measured = functools.partial(measure, workers=workers, auto=arguments.auto)
        # nothing is between Odoo and PostgreSQL where that is not named
        faults = tuple(
            fault for fault in FAULTS if not (arguments.auto and (fault.proxy or fault.wire))
        )
        failed |= report(faults, arguments, measured, functools.partial(wrong, stop=stop), line_of)
        print()
    if not arguments.faults:
        listeners, lasts = 20, 60
        row = idle(listeners, lasts)
        rate = 10 * row["probes"] / lasts
        # each listener sends one in 45 s, and all together share one in 9 s
        allowed = listeners * lasts / 45 + lasts / 9
        failed = failed or row["probes"] > allowed or row["deaf"] > 0
        print(
            f"{listeners} bus listeners that hear nothing for {lasts} s: {row['probes']} probes,"
            f" {rate:.2f} in 10 s; CPU {100 * row['cpu'] / lasts / listeners:.3f} % each"
        )
    sys.exit(failed)


HEAD = (
    f"{'fault':<22}{'sent':>6}{'shown':>7}{'lost':>6}{'twice':>7}{'back s':>8}{'cron s':>8}"
    f"{'lines':>7}{'left':>6}{'stop s':>8}"
)


def line_of(fault: Fault, row: dict, mistakes: list[str]) -> str:
    return (
        f"{fault.name:<22}{row['committed']:>6}{row['shown']:>7}{row['lost']:>6}{row['twice']:>7}"
        f"{seconds(row['back']):>8}{seconds(row['cron']):>8}{row['lines']:>7}"
        f"{row['backends']:>6}{seconds(row['stop']):>8}" + wrongly(mistakes)
    )


if __name__ == "__main__":
    main()
