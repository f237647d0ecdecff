"""``./run bench updates``: what an update of a module does to the visitors of the site."""

from __future__ import annotations

import argparse
import time

from tests.stack import series
from tests.stack.deployment import running_deployment

from .visitors import Visitors

WAYS = (
    # name, direct, addon
    ("stock Odoo, no pooler", True, False),
    ("stock Odoo behind PgBouncer", False, False),
    ("bus_alt_connection", False, True),
)


def measure(direct: bool, addon: bool, number: int) -> str:
    with running_deployment() as deployment:
        db = deployment.direct if direct else None
        options = deployment.direct_settings if addon else {}
        with deployment.odoo(db, addon=addon, workers=2, options=options) as odoo:
            took = []
            with Visitors(odoo.url) as visitors:
                for _i in range(number):
                    time.sleep(2)
                    begin = time.monotonic()
                    odoo.run("-u", "bus", "--stop-after-init", "--no-http")
                    took.append(time.monotonic() - begin)
                time.sleep(5)
            pages = visitors.pages + visitors.failed
            seconds = ", ".join(f"{duration:.1f}" for duration in took)
            return f"{visitors.failed} of {pages} pages failed; each update took {seconds} s"


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench updates", description=__doc__)
    parser.add_argument("--number", type=int, default=3, help="updates")
    number = parser.parse_args(arguments).number
    print(f"{number} updates of bus beside 20 visitors, 2 workers, Odoo {series.SERIES}\n")
    for name, direct, addon in WAYS:
        print(f"  {name:28} {measure(direct, addon, number)}", flush=True)
