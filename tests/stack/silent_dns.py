"""A listener and a probe whose name server never answers.

Runs inside a mount and a network namespace of its own, with a line of JSON as input and lines of
JSON as results. A socket folder leads to a server outside of the namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from bus_alt_connection.config.parameters import load
from bus_alt_connection.listener import probe
from bus_alt_connection.listener.inbox import Inbox
from bus_alt_connection.listener.listener import Listener

from .network import ip
from .process import wait_until

FILES = {"resolv.conf": "nameserver 127.0.0.1\n", "nsswitch.conf": "hosts: dns\n"}
PROBE = 2.0  # timeout of a probe here, seconds


def enter() -> list[str]:
    """Return words that run a command in such namespaces."""
    words = ["unshare", "--mount", "--net"]
    return words if os.getuid() == 0 else [*words, "--user", "--map-root-user"]


@contextlib.contextmanager
def listening(odoo: dict, options: dict):
    """A listener for the bus, with these settings; ends within two seconds, or fails."""

    def parameters(database: str) -> dict:
        return {"application_name": "odoo", "database": database, **odoo}

    inbox = Inbox("imbus", catch_up_while_deaf=True)
    listener = Listener(load({}, options, parameters), inbox)
    listener.start()
    try:
        yield listener
    finally:
        begin = time.monotonic()
        inbox.close()
        listener.join(2)
        print(json.dumps({"stopped": not listener.is_alive(), "after": time.monotonic() - begin}))


def main():
    """Run a listener, then a probe, that resolve a name."""
    arguments = json.loads(sys.stdin.readline())
    socket_, names = arguments["socket"], arguments["name"]
    ip("link", "set", "lo", "up")
    for name, text in FILES.items():
        path = pathlib.Path(arguments["folder"]) / name
        path.write_text(text)
        subprocess.run(["mount", "--bind", path, f"/etc/{name}"], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.bind(("127.0.0.1", 53))
        direct = {f"imdispatcher_db_{key}": str(value) for key, value in names.items()}

        # with the connect_timeout that it has by default
        with listening(socket_, direct):
            time.sleep(0.5)
            name_server.recv(4096)

        begin = time.monotonic()
        with listening(socket_, {**direct, "imdispatcher_db_connect_timeout": "1"}) as listener:
            wait_until(lambda: listener.status.reason, "it is deaf", 20)
            print(json.dumps({"deaf": listener.status.reason, "after": time.monotonic() - begin}))

        probe.PROBE_SEND_TIMEOUT = PROBE
        begin = time.monotonic()
        direct = {f"imdispatcher_db_{key}": str(value) for key, value in socket_.items()}
        with listening({**socket_, **names}, direct) as listener:
            wait_until(lambda: listener.status.reason, "its probe has failed", 20)
            print(
                json.dumps({"unknown": listener.status.reason, "after": time.monotonic() - begin})
            )
    print(json.dumps({"end": time.monotonic()}), flush=True)
