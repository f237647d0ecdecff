"""``./run bench latency``: how long a notification takes, with the addon and without a pooler.

Two prefork servers run at once on one PostgreSQL, each with a database of its own: stock
Odoo straight to PostgreSQL, and Odoo with the addon behind PgBouncer. Notifications go to
one and the other in turn. Two clocks, both stop when the websocket's frame is read:

* commit: Odoo's own code sends; the clock starts before its commit, which connects to
  the database ``postgres``, authenticates and runs NOTIFY;
* NOTIFY: the row of ``bus_bus`` is there, the connection is open; the clock starts before
  the bare NOTIFY.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import time

import psycopg2

from tests.stack import series
from tests.stack.client import BusClient
from tests.stack.deployment import deployment
from tests.stack.odoo import Odoo, Sender

CHANNEL = "benchmark"
WARM_UP = 20
PAUSE = 0.02  # seconds, in which both servers come to rest


class Rival:
    """One server, a websocket to it, and what writes and notifies."""

    def __init__(self, name: str, odoo: Odoo, stack: contextlib.ExitStack, straight, path):
        self.name = name
        self.odoo = odoo
        self.sender = Sender(odoo)
        stack.callback(self.sender.close)
        self.client = stack.enter_context(BusClient(odoo, CHANNEL))
        self.rows = self._connect(stack, straight, odoo.database)
        self.notify = self._connect(stack, path, "postgres")
        self.took: dict[str, list[float]] = {"commit": [], "NOTIFY": []}

    @staticmethod
    def _connect(stack, path, dbname):
        connection = psycopg2.connect(**path._asdict(), dbname=dbname)
        stack.callback(connection.close)
        connection.autocommit = True
        return connection

    def measure(self, text: str):
        time.sleep(PAUSE)
        self._arrived("commit", f"{text} commit", self.sender.send(CHANNEL, f"{text} commit"))
        channel = series.bus_channel(self.odoo.database, CHANNEL)
        self.rows.cursor().execute(
            "INSERT INTO bus_bus (channel, message, create_date)"
            " VALUES (%s, %s, now() AT TIME ZONE 'UTC')",
            [channel, series.message(f"{text} NOTIFY")],
        )
        cursor = self.notify.cursor()
        time.sleep(PAUSE)
        begin = time.monotonic()
        cursor.execute("SELECT pg_notify('imbus', %s)", [f"[{channel}]"])
        self._arrived("NOTIFY", f"{text} NOTIFY", {"begin": begin})

    def _arrived(self, clock: str, text: str, sent: dict):
        self.client.wait_for(text)
        last_text, arrival = self.client.received[-1]
        assert last_text == text
        self.took[clock].append(arrival - sent["begin"])


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench latency", description=__doc__)
    parser.add_argument("--number", type=int, default=500, help="notifications to each server")
    number = parser.parse_args(arguments).number
    with deployment() as whole, contextlib.ExitStack() as stack:
        stock = stack.enter_context(whole.odoo(whole.straight, workers=2, addon=False))
        ours = stack.enter_context(whole.odoo(workers=2, options=whole.direct))
        rivals = [
            Rival("stock Odoo, no pooler", stock, stack, whole.straight, whole.straight),
            Rival("bus_alt_connection, PgBouncer", ours, stack, whole.straight, whole.pooled),
        ]
        for i in range(number + WARM_UP):
            random.shuffle(rivals)
            for rival in rivals:
                rival.measure(f"{i}")
        print(f"Until the websocket's frame, {number} each, in turn, Odoo {series.SERIES}\n")
        rivals.sort(key=lambda rival: rival.name, reverse=True)
        for clock in ("commit", "NOTIFY"):
            medians = []
            for rival in rivals:
                took = sorted(rival.took[clock][WARM_UP:])
                medians.append(statistics.median(took))
                print(
                    f"  from {clock}  {rival.name:<32}p50 {milliseconds(medians[-1]):>9}"
                    f"   p99 {milliseconds(took[int(len(took) * 0.99)]):>9}"
                )
            print(f"  from {clock}  ratio of the medians: {medians[1] / medians[0]:.2f}\n")
