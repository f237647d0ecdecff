"""``./run matrix``: a few tests on each Odoo, pooler and PostgreSQL that is available.

A row is one call of ``./run test -m smoke`` with other options, the last one of ``./run compose``.
Its results go into ``docs/matrix.json``, with the date; rows that were not run this time stay as
they are. The table in docs/compatibility.rst is made of that file (``docs/make.py``).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "docs" / "matrix.json"

# the check that each test belongs to
CHECKS = {
    "test_100_of_100": "delivery",
    "test_quick_notifications_leave_no_websocket_deaf": "delivery",
    "test_one_message_after_a_kill_and_nothing_else": "kill",
    "test_jobs_start_at_once": "cron",
    "test_backups_while_others_query": "backup",
    "test_all_well": "buscheck",
    "test_auto_is_all_that_is_set": "auto",
    "test_an_update_has_a_session_as_odoos_own_role": "update",
    "test_no_lock_timeout_is_left_on_pooled_connections": "update",
    # in containers
    "test_50_of_50_live": "delivery",
    "test_an_odoo_that_is_made_anew_is_found": "delivery",
    "test_buscheck": "buscheck",
    "test_it_asks_the_pooled_connection_where_it_leads": "auto",
}
# the pooler without Odoo; if this fails, the other tests are not run
FIRST = "tests/servers/test_poolers.py"
TIMED_OUT = 124  # exit status of the program timeout
MODES = ("threaded", "prefork")
# the result of a check with several tests is the first of these that one of them has
RANK = ("failed", "passed", "skipped")


@dataclasses.dataclass
class Row:
    """One combination.

    :param name: of the row, as it is named on the command line
    :param options: of the command
    :param command: of ``./run``
    :param modes: of Odoo, in a test whose parameter names none
    """

    name: str
    odoo: str
    options: list[str]
    mode: str = "transaction"
    pooler: str = "pgbouncer"
    command: str = "test"
    modes: tuple[str, ...] = MODES


def series_of(path: str) -> str:
    """Return the series of an Odoo's source, such as 16.0."""
    text = (pathlib.Path(path) / "odoo" / "release.py").read_text()
    return ".".join(re.search(r"^version_info = \(\D*(\d+)\D+(\d+)", text, re.M).groups())


def rows(checkouts: list[str]) -> list[Row]:
    odoos = {series_of(path): ["--odoo", path] for path in checkouts}
    odoos.update({"14.0": ["--series", "14.0"], "19.0": []})
    found = [Row(series, series, odoos[series]) for series in sorted(odoos)]
    for pooler, mode in (
        ("pgbouncer", "session"),
        ("pgbouncer-sid", "transaction"),
        ("pgbouncer-sid", "session"),
        ("odyssey", "transaction"),
        ("odyssey", "session"),
        ("pgagroal", "transaction"),
        ("pgagroal", "session"),
        ("pgpool", "session"),
    ):
        options = ["--pooler", pooler, "--pool-mode", mode]
        found.append(Row(f"{pooler}:{mode}", "19.0", options, mode, pooler))
    found.append(Row("postgresql-sid", "19.0", ["--postgresql", "sid"]))
    containers = Row("containers", "19.0", ["--stand-ins"], command="compose", modes=("threaded",))
    found.append(containers)
    return found


def run(row: Row) -> dict:
    """Run the tests of a row and return their results."""
    found = {
        "odoo": row.odoo,
        "pooler": row.pooler,
        "mode": row.mode,
        "postgresql": "",
        "buscheck": "",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "checks": {},
        "why": "",
    }
    if row.command == "test":
        found["why"] = test(row, found, 120, FIRST)
    found["why"] = found["why"] or test(row, found, 3600)
    return found


def test(row: Row, found: dict, seconds: int, *paths: str) -> str:
    """Add the results of the tests, of these files or all, to ``found``; return why they failed.

    :param seconds: timeout, because a pooler may hang
    """
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        run = [
            "timeout",
            "--kill-after=30",
            str(seconds),
            CHECKOUT / "run",
            row.command,
            *row.options,
        ]
        done = subprocess.run([*run, "-m", "smoke", *paths, f"--junitxml={report}"], stdout=2)
        if done.returncode == TIMED_OUT:
            return f"not done within {seconds} s"
        if not report.exists():
            return f"./run {row.command} ended with {done.returncode}"
        return read(report, found, row.modes)


def read(report: pathlib.Path, found: dict, modes: tuple[str, ...]) -> str:
    """Add pytest's results to ``found``; return how a test of the pooler alone failed, or "".

    :param modes: of Odoo, in a test whose parameter names none
    """
    why = ""
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        for recorded in case.iter("property"):
            found[recorded.get("name")] = recorded.get("value")
        result, message = result_of(case)
        name, _bracket, parameter = case.get("name").partition("[")
        if name not in CHECKS:
            why = why or message
            continue
        for mode in [mode for mode in MODES if mode in parameter] or modes:
            checks = found["checks"].setdefault(mode, {})
            now = checks.get(CHECKS[name], "skipped")
            checks[CHECKS[name]] = min(now, result, key=RANK.index)
    return why


def result_of(case: xml.etree.ElementTree.Element) -> tuple[str, str]:
    """Return the result of a test of pytest's report, and how it failed."""
    for tag, result in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            message = found.get("message").splitlines()[0] if result == "failed" else ""
            return result, message
    return "passed", ""


def save(name: str, row: dict):
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**kept, name: row}, indent=1, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser(prog="./run matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--odoo", action="append", default=[], help="an Odoo's source")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="these alone, such as 19.0")
    arguments = parser.parse_args()
    possible = rows(arguments.odoo)
    names = [row.name for row in possible]
    for name in arguments.rows:
        if name not in names:
            parser.error(f"no row {name}; there are {', '.join(names)}")
    for row in possible:
        if row.name in (arguments.rows or names):
            print(f"• {row.name}", file=sys.stderr, flush=True)
            save(row.name, run(row))
    os.execv(CHECKOUT / "run", ["run", "docs"])


if __name__ == "__main__":
    main()
