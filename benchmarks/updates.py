"""``./run bench updates``: what an update of a module does to the visitors of the site."""

from __future__ import annotations

import argparse
import time

from tests.stack import series
from tests.stack.deployment import deployment

from .visitors import Visitors

WAYS = (
    # name, straight, addon
    ("stock Odoo, no pooler", True, False),
    ("stock Odoo behind PgBouncer", False, False),
    ("bus_alt_connection", False, True),
)


def measure(straight: bool, addon: bool, number: int) -> str:
    with deployment() as whole:
        db = whole.straight if straight else None
        options = whole.direct if addon else {}
        with whole.odoo(db, addon=addon, workers=2, options=options) as odoo:
            took = []
            with Visitors(odoo.url) as visitors:
                for _i in range(number):
                    time.sleep(2)
                    begin = time.monotonic()
                    odoo.run("-u", "bus", "--stop-after-init", "--no-http")
                    took.append(time.monotonic() - begin)
                time.sleep(5)
            pages = visitors.pages + visitors.failed
            seconds = ", ".join(f"{one:.1f}" for one in took)
            return f"{visitors.failed} of {pages} pages failed; each update took {seconds} s"


def main(arguments: list[str]):
    parser = argparse.ArgumentParser(prog="./run bench updates", description=__doc__)
    parser.add_argument("--number", type=int, default=3, help="updates")
    number = parser.parse_args(arguments).number
    print(f"{number} updates of bus beside 20 visitors, 2 workers, Odoo {series.SERIES}\n")
    for name, straight, addon in WAYS:
        print(f"  {name:28} {measure(straight, addon, number)}", flush=True)
