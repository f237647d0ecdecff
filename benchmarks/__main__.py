"""``./run bench [PART…]``: every way to run Odoo behind PgBouncer, beside Odoo without it.

All servers of a part run at once on one PostgreSQL, prefork, each with a database and a
PgBouncer of its own, and are measured in turn. Without PART everything is measured, and
benchmarks/results.md written. Some parts are separate, with options of their own: ``./run bench
backups`` is about pg_dump, ``updates`` about modules, ``queue_job`` about an addon beside,
``proofs`` about direct connections, ``leaders`` about the process that leads, ``fleet`` about many
Odoo servers, ``dashboard`` about what Grafana shows.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from tests.stack.deployment import running_deployment
from tests.stack.process import end_on_signals

from . import (
    backups,
    dashboard,
    fleet,
    leaders,
    measures,
    missed,
    outages,
    proofs,
    queue_job,
    results,
    updates,
)
from .setups import setups

TWO_WORKERS = ("notification", "crowds", "bursts", "paced", "killed", "cron")
PARTS = (*TWO_WORKERS, "outages", "places", "dying", "missed", "pages", "backends")
SEPARATE = {
    "backups": backups.main,
    "updates": updates.main,
    "proofs": proofs.main,
    "queue_job": queue_job.main,
    "leaders": leaders.main,
    "fleet": fleet.main,
}


def measure(parts: list[str], quick: bool, before: str = ""):
    """Yield the name and the table of each part.

    :param before: the folder of another version of the addon, to compare with
    """

    def pick(full, short):
        return short if quick else full

    chosen = [name for name in TWO_WORKERS if name in parts]
    with running_deployment(
        options=measures.POSTGRESQL
    ) as deployment, contextlib.ExitStack() as stack:
        yield "machine", results.machine(deployment)
        if chosen:
            servers = [
                measures.MeasuredServer(setup.start(deployment, stack), deployment, stack)
                for setup in setups()
            ]
        calls = {
            "notification": lambda: measures.notification(servers, pick(30, 3)),
            "crowds": lambda: measures.crowds(
                servers, pick((1, 10, 100, 500), (1, 10)), pick(9, 2)
            ),
            "bursts": lambda: measures.bursts(servers, pick(100, 10), pick(1000, 50), pick(3, 1)),
            "paced": lambda: measures.bursts(
                servers, pick(100, 10), pick(500, 50), pick(3, 1), every=1 / 40
            ),
            "killed": lambda: measures.killed(servers, deployment),
            "cron": lambda: measures.cron(servers, pick(20, 3)),
        }
        for name in chosen:
            yield name, calls[name]()
    alone = {
        "outages": outages.outages,
        "places": outages.few_places,
        "dying": lambda *args: outages.dying(*args, pick(100, 5)),
    }
    for name in [name for name in alone if name in parts]:
        with running_deployment(options=measures.POSTGRESQL) as deployment:
            yield name, alone[name](setups(), deployment)
    if {"crowds", "missed"} & set(parts):
        yield from missed.measure(before, pick((2000, 5000), (50,)), pick(3, 1))
    if "pages" in parts:
        with running_deployment(
            options=measures.POSTGRESQL
        ) as deployment, contextlib.ExitStack() as stack:
            servers = [setup.start(deployment, stack, workers=6, cron=0) for setup in setups()]
            yield "pages", measures.pages(servers, 4, pick(5, 1), pick(4, 1))
    if "backends" in parts:
        yield "backends", measures.backends(pick((2, 4, 8), (2, 4)), pick((1, 2, 3), (1, 2)))


def main(arguments: list[str]):
    if arguments and arguments[0] in SEPARATE:
        SEPARATE[arguments[0]](arguments[1:])
        return
    if arguments == ["dashboard"]:
        dashboard.main()
        return
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of each: to try the benchmark")
    parser.add_argument("--keep", action="store_true", help="put these parts into results.md")
    parser.add_argument("--before", default="", help="a checkout to compare with, in crowds")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            alone = ", ".join(SEPARATE)
            parser.error(f"no part {name!r}; there are: {', '.join(PARTS)}; alone: {alone}")
    tables = {}
    where = ""
    for name, table in measure(options.parts or list(PARTS), options.quick, options.before):
        if name == "machine":
            where = table
            print(where, flush=True)
        else:
            tables[name] = table
    if options.parts and options.keep:
        results.replace(where, tables)
    if not options.parts and not options.quick:
        results.write(where, tables)
        print("\nwritten: benchmarks/results.md, benchmarks/results.json")


if __name__ == "__main__":
    end_on_signals()
    main(sys.argv[1:])
