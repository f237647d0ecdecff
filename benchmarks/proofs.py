"""``./run bench proofs``: what it costs to find a direct connection and to prove it."""

from __future__ import annotations

import argparse
import os
import statistics
import time

import psycopg2

from bus_alt_connection.config.parameters import load
from bus_alt_connection.postgres.proof import prove
from tests.stack.deployment import running_deployment

LINE = "  {:42} {:6.1f} {:6.1f} ms"


def measure(what, number: int) -> tuple[float, float]:
    """Return median and 99th percentile, milliseconds."""
    took = []
    for _i in range(number):
        begin = time.perf_counter()
        what()
        took.append(1000 * (time.perf_counter() - begin))
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench proofs", description=__doc__)
    parser.add_argument("--number", type=int, default=500, help="of each")
    number = parser.parse_args(arguments).number
    with running_deployment() as deployment:
        pooled = {**deployment.pooled._asdict(), "application_name": f"odoo-{os.getpid()}"}

        def settings(**options):
            return load({}, options, lambda database: {**pooled, "database": database})

        named = {key: str(text) for key, text in deployment.direct_settings.items()}
        ways = {"named host": settings(**named), "auto": settings(imdispatcher_db_host="auto")}
        direct = {**deployment.direct._asdict(), "dbname": "postgres"}
        print(f"median and 99th percentile of {number}\n")
        connect = measure(lambda: psycopg2.connect(**direct).close(), number)
        print(LINE.format("connecting to PostgreSQL alone, psycopg2", *connect))
        for name, way in ways.items():
            figures = measure(lambda way=way: prove(way.direct, way.pooled, "postgres"), number)
            print(LINE.format(f"a direct connection, proven: {name}", *figures), flush=True)
