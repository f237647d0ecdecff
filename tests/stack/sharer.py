"""A process that waits on inboxes as one of Odoo's does, and writes what it gets as lines of JSON.

Its first line of input has the settings and the inboxes; each later one is an order.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import selectors
import sys
import threading
import time

from bus_alt_connection.config.parameters import Settings
from bus_alt_connection.listener.inbox import Inbox
from bus_alt_connection.sharing.sharing import Sharing

from .inboxes import inbox_with

LOCK = threading.Lock()


def say(**event) -> None:
    with LOCK:
        sys.stdout.write(json.dumps({**event, "time": time.monotonic()}) + "\n")
        sys.stdout.flush()


class Log(logging.Handler):
    def emit(self, record):
        say(log=record.getMessage(), level=record.levelname)


class Cron(threading.Thread):
    """Asks for the number of the file descriptor before each wait, as Odoo's cron does."""

    def __init__(self, sharing: Sharing, channel: str):
        super().__init__(daemon=True)
        self.inbox, self.busy = self.make(channel), threading.Event()
        self.busy.set()
        sharing.subscribe(self.inbox)
        self.start()

    def make(self, channel: str) -> Inbox:
        return inbox_with(channel, list_databases=lambda: ["everything"])

    def run(self):
        with contextlib.suppress(ValueError, OSError):
            while not self.inbox.closed:
                self.busy.wait()  # a job may take an hour
                select.select([self.inbox], [], [])
                self.take()

    def take(self):
        self.inbox.poll()
        say(channel=self.inbox.channel, payloads=[one.payload for one in self.inbox.notifies])


class Bus(Cron):
    """Gives its file descriptor to a selector once, as Odoo's bus does."""

    def make(self, channel: str) -> Inbox:
        everything = [["everything"]]
        return inbox_with(
            channel, True, fixed_fileno=True, catch_up_payloads=lambda told=(): everything
        )

    def run(self):
        with contextlib.suppress(ValueError, OSError), selectors.DefaultSelector() as selector:
            selector.register(self.inbox, selectors.EVENT_READ)
            while not self.inbox.closed:
                selector.select()
                self.take()


def main():
    order = json.loads(sys.stdin.readline())
    logging.getLogger().addHandler(Log())
    logging.getLogger().setLevel(logging.INFO)
    settings = Settings({}, order["database"], order["listener"], {}, order["pooled"])
    sharing = Sharing(settings, "1", order.get("server") or os.getpid())
    loops = [
        (Bus if channel == "imbus" else Cron)(sharing, channel) for channel in order["channels"]
    ]
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("fork") and os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        if "busy" in order:
            for loop in loops:
                (loop.busy.clear if order["busy"] else loop.busy.set)()
        listener = sharing.listener
        say(
            threads=sorted(thread.name for thread in threading.enumerate()),
            leads=bool(listener and listener.leads and listener.is_alive()),
            state=listener.status.state.value if listener else None,
            channels=listener.channels if listener else [],
            followers=listener.followers if listener else 0,
            failures={k.value: n for k, n in listener.failure_counts.items()} if listener else {},
        )
        if order.get("close"):
            for loop in loops:
                loop.inbox.close()


main()
