"""``./run faults --compose``: what each fault of a service of docker-compose.yml costs.

Ends with 1 where a figure is not what it must be. With one message every 200 ms before, while and
after the fault, from a second Odoo in a container of its own:

* committed, lost, shown twice;
* seconds from when the service was back until a message was accepted, and until one was shown;
* lines of the addon in Odoo's log.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import secrets
import sys
import threading
import time
from collections.abc import Callable

import requests

from ..faults import at_most, chosen, delivery, out_of_limits, report, seconds, wrongly
from ..stack.client import BusClient
from ..stack.odoo import NotCommitted
from ..stack.process import accepts, end_on_signals, run_folder, started, wait_until
from .engine import Failed, OwnEngine, engine
from .project import ContainerSender, Project

PERIOD = 0.2  # s between two messages
AWAY = 5.0  # s for which a service is down, where it is not restarted at once
PAUSE = 20.0

# limits, in seconds after the service is back
BACK = 3
# no error reaches the others: they notice by themselves
BACK_FROM_SILENCE = 30

PORTS = {"postgres": 5432, "pgbouncer": 6432, "odoo": 8069}


class Messages:
    """Sends a message every ``PERIOD`` seconds, also through engines and senders that end.

    ``committed`` maps each message to the end of its commit (monotonic, s).
    """

    def __init__(self, project: Project, channel: str):
        self.committed: dict[str, float] = {}
        self._project, self._channel = project, channel
        self._sender = ContainerSender(project)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def send(self, text: str):
        try:
            if self._sender is None:
                self._sender = ContainerSender(self._project)
            self.committed[text] = self._sender.send(self._channel, text)["end"]
        except NotCommitted:
            pass
        # its container has ended, and the engine perhaps
        except (RuntimeError, OSError, ValueError, LookupError, Failed):
            if self._sender is not None:
                with contextlib.suppress(OSError):
                    self._sender.close()
            self._sender = None

    def _run(self):
        number = 0
        while not self._stop.wait(PERIOD):
            number += 1
            self.send(f"message {number}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join()

    def close(self):
        if self._sender is not None:
            self._sender.close()


def address(project: Project, service: str) -> str:
    """Return the address of a service's container, or "" while it has none."""
    networks = project.inspect(service)["NetworkSettings"]["Networks"].values()
    return next((network["IPAddress"] for network in networks), "")


def answers(project: Project, service: str) -> bool:
    """Tell whether the service itself does what it is there for."""
    if service == "odoo":
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{project.url}/web/health", timeout=5).ok
        return False
    host = address(project, service)
    return bool(host) and accepts(PORTS[service], host)


def back(project: Project, service: str) -> float:
    """Wait until the service answers and return when it did (monotonic, s)."""
    wait_until(lambda: answers(project, service), f"{service} answers", 60, 0.02)
    return time.monotonic()


def restart(project: Project, service: str) -> float:
    project.compose("restart", service)
    return back(project, service)


def kill_and_start(project: Project, service: str) -> float:
    project.compose("kill", service)
    time.sleep(AWAY)
    project.compose("start", service)
    return back(project, service)


def pause(project: Project, service: str) -> float:
    project.compose("pause", service)
    time.sleep(PAUSE)
    project.compose("unpause", service)
    return time.monotonic()


def another_address(project: Project, service: str) -> float:
    """The service comes back at another address: another container came before it."""
    docker, network = project.engine.docker, project.networks(service)[0]
    old, name = address(project, service), f"{project.name}-in-its-place"
    project.compose("stop", service)
    image = project.inspect(service)["Config"]["Image"]
    place = (f"--network={network}", f"--name={name}", "--entrypoint=sleep")
    docker("run", "--detach", *place, image, "infinity")
    try:
        project.compose("start", service)
        since = back(project, service)
        assert address(project, service) != old
        time.sleep(AWAY)
        return since
    finally:
        docker("rm", "--force", name)


def unplugged(project: Project, service: str) -> float:
    docker, network = project.engine.docker, project.networks(service)[0]
    container = project.container(service)
    docker("network", "disconnect", network, container)
    time.sleep(AWAY)
    docker("network", "connect", f"--alias={service}", network, container)
    return back(project, service)


def engine_restarted(project: Project, _service: str) -> float:
    project.engine.stop_daemon()
    project.engine.start_daemon()
    for service in ("postgres", "pgbouncer"):
        back(project, service)
    return back(project, "odoo")


@dataclasses.dataclass
class Fault:
    """A row of the table.

    :param silent: no error reaches the other services
    """

    name: str
    happens: Callable[[Project, str], float]
    service: str = "odoo"
    silent: bool = False
    own_engine: bool = False


FAULTS = (
    *(Fault(f"{service} restarted", restart, service) for service in PORTS),
    *(Fault(f"{service} killed", kill_and_start, service) for service in PORTS),
    *(Fault(f"{service} paused", pause, service) for service in PORTS),
    *(Fault(f"{service} unplugged", unplugged, service) for service in PORTS),
    Fault("postgres elsewhere", another_address, "postgres"),
    Fault("pgbouncer elsewhere", another_address, "pgbouncer"),
    Fault("engine restarted", engine_restarted, own_engine=True),
)


def lines(project: Project) -> list[str]:
    return [line for line in project.log("odoo").splitlines() if ".bus_alt_connection" in line]


def measure(fault: Fault, project: Project) -> dict:
    """Let the fault happen and return a row of the table."""
    channel = f"channel-{secrets.token_hex(4)}"
    before = len(lines(project))
    messages = Messages(project, channel)
    try:
        with BusClient(project, channel) as client:
            messages.send("first")
            client.wait_for("first")
            with messages:
                time.sleep(1)
                begun = time.monotonic()
                since = fault.happens(project, fault.service)
                accepted = wait_for_commit(messages, since)
                time.sleep(5)
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: set(messages.committed) <= set(client.texts()), "shown", 40)
            delivered = delivery(client.received, messages.committed, begun, since)
    finally:
        messages.close()
    return {
        "sent": len(messages.committed),
        "lost": len(delivered["lost"]),
        "twice": delivered["twice"],
        "accepted": accepted,
        "back": delivered["back"],
        "text": lines(project)[before:],
    }


def wait_for_commit(messages: Messages, since: float) -> float | None:
    """Wait until something is committed after this moment; return how long after it."""

    def later() -> list:
        return [end - since for end in messages.committed.values() if end >= since]

    with contextlib.suppress(TimeoutError):
        wait_until(later, "a message is committed", 60)
    return min(later(), default=None)


def wrong(fault: Fault, row: dict) -> list[str]:
    """Return the names of the figures that are out of their limits."""
    limit = BACK_FROM_SILENCE if fault.silent else BACK
    return out_of_limits(row, {"back": at_most(row["back"], limit)})


HEAD = f"{'fault':<22}{'sent':>6}{'lost':>6}{'twice':>7}{'accepted s':>12}{'back s':>8}{'lines':>7}"


def line_of(fault: Fault, row: dict, mistakes: list[str]) -> str:
    return (
        f"{fault.name:<22}{row['sent']:>6}{row['lost']:>6}{row['twice']:>7}"
        f"{seconds(row['accepted']):>12}{seconds(row['back']):>8}{len(row['text']):>7}"
        + wrongly(mistakes)
    )


def main():
    parser = argparse.ArgumentParser(
        prog="./run faults --compose", description=__doc__.splitlines()[0]
    )
    arguments = chosen(parser, [fault.name for fault in FAULTS])
    end_on_signals()
    with run_folder() as folder, started(engine(folder)) as running:
        possible = [f for f in FAULTS if not f.own_engine or isinstance(running, OwnEngine)]
        project = Project(running, "faults", {})
        with project.running("--build"):
            print(f"docker-compose.yml\n\n{HEAD}", flush=True)
            failed = report(possible, arguments, lambda f: measure(f, project), wrong, line_of)
    sys.exit(failed)


if __name__ == "__main__":
    main()
