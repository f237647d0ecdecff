"""``./run bench cron``: from the commit that triggers a cron job to its start.

Both servers are behind PgBouncer; stock Odoo is asked once in each mode, because it takes
its minute.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tests.stack import series
from tests.stack.deployment import deployment
from tests.stack.odoo import Sender
from tests.stack.process import wait_until


def seconds_to_start(odoo, number: int) -> list[float]:
    """Trigger jobs one after the other; return the seconds that each took to start."""
    took = []
    sender = Sender(odoo)
    try:
        for i in range(number):
            job = f"benchmark {i}"
            committed = sender.trigger(job)["end"]
            wait_until(lambda job=job: series.job_starts(odoo.log(), job), job, 120, 0.005)
            took.append(time.monotonic() - committed)
    finally:
        sender.close()
    return took


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench cron", description=__doc__)
    parser.add_argument("--number", type=int, default=10, help="jobs with the addon")
    number = parser.parse_args(arguments).number
    print(f"Cron job, from its trigger to its start, behind PgBouncer, Odoo {series.SERIES}\n")
    with deployment() as whole:
        for mode, workers in (("threaded", 0), ("prefork", 2)):
            for name, addon in (("stock Odoo", False), ("bus_alt_connection", True)):
                options = {**whole.direct, "max_cron_threads": 1}
                with whole.odoo(workers=workers, addon=addon, options=options) as odoo:
                    report(mode, name, seconds_to_start(odoo, number if addon else 1))
        # last, because it closes the database postgres for the role
        whole.postgres.execute("CREATE DATABASE bus")
        whole.postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        options["imdispatcher_db_name"] = "bus"
        with whole.odoo(options=options, named=False) as odoo:
            report("threaded", "imdispatcher_db_name=bus", seconds_to_start(odoo, number))


def report(mode: str, name: str, took: list[float]):
    print(
        f"  {mode:<10}{name:<26}p50 {statistics.median(took):6.2f} s"
        f"   max {max(took):6.2f} s   ({len(took)} jobs)",
        flush=True,
    )
