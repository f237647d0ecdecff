"""What a run has measured: printed while it runs, then kept as ``results.md`` and ``.json``."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess

from tests.stack import series
from tests.stack.deployment import Deployment
from tests.stack.postgres import SERVERS, server_environ

FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass
class Table:
    """One measurement; ``figures`` maps a column to one number per row, for the plots."""

    title: str
    note: str
    head: list[str]
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    figures: dict = dataclasses.field(default_factory=dict)

    def add(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def lines(self) -> list[str]:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows)]
        return [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths))
            ).rstrip()
            for cells in [self.head, *self.rows]
        ]

    def show(self) -> Table:
        print(f"\n{self.title}\n{self.note}\n", flush=True)
        print("\n".join(f"  {line}" for line in self.lines()), flush=True)
        return self


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"


def p99(values: list[float]) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * 0.99))]


def ratio(mine: list[list[float]], first: list[list[float]]) -> str:
    """Return the ratio of the medians, and the least and greatest that a block had.

    Both are lists of blocks that were measured in turn.
    """

    def median(blocks):
        return statistics.median([value for block in blocks for value in block])

    each = [statistics.median(a) / statistics.median(b) for a, b in zip(mine, first)]
    return f"{median(mine) / median(first):.2f} ({min(each):.2f}–{max(each):.2f})"


def machine(deployment: Deployment) -> str:
    """Return a line about what the figures were measured on."""
    ((version,),) = deployment.postgres.execute("SHOW server_version")
    pgbouncer = subprocess.run(
        [SERVERS / "usr/sbin/pgbouncer", "--version"],
        env=server_environ(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    cpu = platform.machine()
    with open("/proc/cpuinfo") as info:
        cpu = next((line.split(":")[1].strip() for line in info if "model name" in line), cpu)
    return (
        f"Odoo {series.SERIES} prefork, PostgreSQL {version.split()[0]},"
        f" {pgbouncer.splitlines()[0]}, Python {platform.python_version()};"
        f" {os.cpu_count()} × {cpu}, Linux {platform.release().split('-')[0]};"
        f" {datetime.date.today()}"
    )


def replace(where: str, tables: dict[str, Table]):
    """Put these tables in the place of what was measured before, each with where and when."""
    path = FOLDER / "results.md"
    begin, *sections = path.read_text().split("\n## ")
    by_title = {section.partition("\n")[0]: section for section in sections}
    figures = json.loads((FOLDER / "results.json").read_text())
    for name, table in tables.items():
        body = [table.title, "", f"{table.note} Measured again: {where}", "", "```text"]
        by_title[table.title] = "\n".join([*body, *table.lines(), "```", ""])
        figures[name] = table.figures
    last = list(by_title)[-1]
    by_title[last] = by_title[last].rstrip("\n") + "\n"
    path.write_text("\n## ".join([begin, *by_title.values()]))
    (FOLDER / "results.json").write_text(json.dumps(figures, indent=1) + "\n")


def write(where: str, tables: dict[str, Table]):
    text = ["# Results", "", f"Written by `./run bench`. {where}", ""]
    for table in tables.values():
        text += [f"## {table.title}", "", table.note, "", "```text", *table.lines(), "```", ""]
    (FOLDER / "results.md").write_text("\n".join(text))
    figures = {name: table.figures for name, table in tables.items()}
    (FOLDER / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
