"""``./run docs``: make what is made from something else.

* the table of settings in docs/settings.rst, from ``bus_alt_connection/config/settings.py``;
* the tables in docs/figures.rst and docs/figures-missed.rst, from ``benchmarks/results.md``, which
  ``./run bench`` writes;
* the figures that stand in a sentence (``|commit here|``), from the same tables;
* the table in docs/compatibility.rst, from ``docs/matrix.json``, which ``./run matrix`` writes;
* ``bus_alt_connection/README.rst`` and ``static/description/index.html`` (the page on Odoo Apps),
  from the fragments in ``bus_alt_connection/readme/`` and the same table.

``tests/odoo/test_docs.py`` fails where a file differs from what this would write.
"""

from __future__ import annotations

import json
import pathlib
import re
import textwrap
import typing

from docutils.core import publish_parts

from bus_alt_connection.config import settings

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
ADDON = CHECKOUT / "bus_alt_connection"
TITLE = "Bus Alternative Connection"
BEGIN = ".. begin: settings, from settings.py"
END = ".. end: settings"
BEGIN_MATRIX = ".. begin: matrix, from docs/matrix.json"
END_MATRIX = ".. end: matrix"
BEGIN_NEIGHBOURS = ".. begin: neighbours, from docs/neighbours.json"
END_NEIGHBOURS = ".. end: neighbours"
BEGIN_RESULTS = ".. begin: results, from benchmarks/results.md"
END_RESULTS = ".. end: results"
BEGIN_FIGURES = ".. begin: figures, from benchmarks/results.md"
END_FIGURES = ".. end: figures"
TABLE = r"^## ([^\n]+)\n\n([^\n]+)\n\n```text\n(.+?)```"
# the rows of results.md, as the pages name the ways to run Odoo
NAMES = {
    "stock, no pooler": "no pooler",
    "stock, PgBouncer": "plain Odoo",
    "stock, session pool": "session entry",
    "existing addon": "OCA addon",
    "bus_alt_connection": "this addon",
    "before": "1.1.0",
}
# the same for other words of results.md, each as long as the one in whose place it stands
WORDS = {"  all: it hears nothing": "   all: nothing arrives"}
FEW = 20  # as benchmarks/missed.py has it
# what the pages say of a table instead of the note in results.md
TITLES = {
    "Five processes, three places of a session pool": (
        "Five processes share a pool of three connections",
        "The pooler keeps sessions. Each process commits five notifications in turn;"
        " query_wait_timeout is 8 s. A way to run Odoo that keeps a connection would let others"
        " wait until they fail: failed should be 0.",
    ),
    **{
        f"{FEW} of {size} websockets missed a notification": (
            f"{FEW} of {size} websockets missed a notification",
            "Seconds after the path was back: until the server listened again, and until those who"
            " missed something had it. transactions: of the pooler, until the last one had it, and"
            " until all were told. CPU: of the Odoo server until then. Median of 3 losses; one of"
            " plain Odoo.",
        )
        for size in ("2,000", "5,000")
    },
    **{
        f"Each of {size} websockets missed a notification": (
            f"Each of {size} websockets missed a notification",
            "The same, and seconds that ordinary notifications take meanwhile, from their INSERT"
            " on; one was sent each 0.25 s.",
        )
        for size in ("2,000", "5,000")
    },
    "Killed right after the commit": (
        "Killed right after the commit",
        "100 processes, forked as Odoo's workers are. Each commits one notification, pauses,"
        " commits another, then ends itself at once with SIGKILL. heard: how many of the last"
        " notifications arrived.",
    ),
}
# pictures of some tables, in benchmarks/
PICTURES = {
    "One notification": "notification",
    "One notification to many websockets": "crowds",
    "Pages per second": "pages",
    "PostgreSQL's connections": "backends",
}
# the fragments' names are OCA's
FRAGMENTS = {
    "DESCRIPTION": "",
    "INSTALL": "Installation",
    "CONFIGURE": "Configuration",
    "USAGE": "Usage",
    "CONTRIBUTORS": "Contributors",
}
MADE = ".. made by ./run docs from the fragments in readme/\n"


def settings_table() -> str:
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 26 30 30 14",
        "",
        "   * - odoo.conf",
        "     - environment, also with ``ODOO_`` before it",
        "     - what it is",
        "     - if it is not set",
    ]
    for option, (meaning, default) in settings.DESCRIPTIONS.items():
        lines += [
            f"   * - ``{option}``",
            f"     - ``{option.upper()}``",
            f"     - {meaning}",
            f"     - ``{default}``",
        ]
    lines += [
        f"   * - ``{settings.DB_PREFIX}<any keyword of libpq>``",
        f"     - ``{settings.DB_PREFIX.upper()}<KEYWORD>``",
        "     - any other keyword of libpq: ``sslrootcert``, ``service``, ``keepalives_idle``, …",
        "     - libpq's default, but 10 s to connect and keepalives after 10 s",
    ]
    return "\n".join(lines) + "\n"


def _result(row: dict, mode: str) -> str:
    """✓, or what failed."""
    bad = [name for name, result in sorted(row["checks"][mode].items()) if result == "failed"]
    return "✗ " + ", ".join(bad) if bad else "✓"


def _matrix_row(row: dict) -> list[str]:
    cells = [row["odoo"], f"{row['pooler']}, {row['mode']}", row["postgresql"]]
    if row["why"]:
        return [*cells, "does not work", "–", row["date"]]
    return [*cells, _result(row, "threaded"), _result(row, "prefork"), row["date"]]


def matrix_table() -> str:
    """The rows that were run, in the order of Odoo's series, then of the poolers."""
    kept = json.loads((CHECKOUT / "docs" / "matrix.json").read_text(encoding="utf-8"))
    head = ["Odoo", "pooler", "PostgreSQL", "threaded", "prefork", "run on"]
    cells = [head, *(_matrix_row(row) for _name, row in sorted(kept.items()))]
    widths = [max(map(len, column)) for column in zip(*cells)]
    rule = "  ".join("=" * width for width in widths)
    rows = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join([rule, rows[0], rule, *rows[1:], rule]) + "\n"


class Table(typing.NamedTuple):
    """A table of results.md: its note, its text, and the cells of each row by the row's name."""

    note: str
    text: str
    rows: dict[str, list[str]]


def tables() -> dict[str, Table]:
    """The tables of results.md by title, with the names of this page for the rows."""
    text = (CHECKOUT / "benchmarks" / "results.md").read_text(encoding="utf-8")
    found = {}
    for title, note, table in re.findall(TABLE, text, re.M | re.S):
        renamed = _renamed(table)
        lines = [re.split(r" {2,}", line.strip()) for line in renamed.splitlines()]
        found[title] = Table(note, renamed, {name: cells for name, *cells in lines[1:]})
    return found


def _renamed(table: str) -> str:
    for old, new in {**NAMES, **WORDS}.items():
        table = re.sub(rf"(?m){re.escape(old)}(?=  |$)", new.ljust(len(old)), table)
    return table


def results(after_a_loss: bool) -> str:
    """The tables of results.md, each with its note and its picture.

    :param after_a_loss: those of websockets that missed something, or else all others
    """
    parts = []
    for title, (said, table, _rows) in tables().items():
        if ("missed" in title) != after_a_loss:
            continue
        shown, note = TITLES.get(title, (title, said))
        parts += [f"{shown}\n{'-' * len(shown)}\n", textwrap.fill(note, 115) + "\n"]
        if title in PICTURES:
            picture = f"../benchmarks/{PICTURES[title]}.svg"
            parts.append(f".. image:: {picture}\n   :alt: the table below as a picture\n")
        parts.append(f".. code-block:: text\n\n{textwrap.indent(table, '  ')}")
    return "\n".join(parts)


# --- figures that stand in a sentence -------------------------------------------------

COMMIT, KILLED, CRON = "One notification", "The listener's backend is killed", "A cron job"
BURSTS, CONNECTIONS = "Bursts", "PostgreSQL's connections"


def _number(cell: str) -> float:
    """The number with which a cell begins."""
    return float(re.match(r"[\d,.]+", cell)[0].replace(",", ""))


def _cell(title: str, row: str, column: int) -> str:
    return tables()[title].rows[row][column]


def _ms(title: str, row: str, column: int) -> str:
    return f"{_number(_cell(title, row, column)):.1f} ms"


def _seconds(title: str, row: str, column: int) -> str:
    value = _number(_cell(title, row, column))
    return f"{value:.0f} s" if value >= 1 else f"{value:.1f} s"


def _range(row: str, column: int) -> str:
    rest, load = _cell(CONNECTIONS, row, column).split(" / ")
    return f"{rest} to {load}"


def _later(title: str, column: int, unit: float) -> str:
    """How much later than without a pooler."""
    here, there = (_number(_cell(title, row, column)) for row in ("this addon", "no pooler"))
    return f"{unit * (here - there):.1f} ms"


def _backups() -> tuple[str, str]:
    """The failed queries of figures-faults.rst: without this addon, and with it."""
    page = (CHECKOUT / "docs" / "figures-faults.rst").read_text(encoding="utf-8")
    without, with_it = re.findall(r"restore: \d+; queries of others that failed: (.+)", page)
    return without, with_it


def figures() -> dict[str, str]:
    """What a page may name as ``|name|``."""
    found = {
        "commit direct": _ms(COMMIT, "no pooler", 0),
        "commit plain": _ms(COMMIT, "plain Odoo", 0),
        "commit here": _ms(COMMIT, "this addon", 0),
        "bare later": _later(COMMIT, 9, 1),
        "cron later": _later(CRON, 2, 1000),
        "burst rate": f"{_number(_cell(BURSTS, 'this addon', 1)):.1f} times",
        "burst median": _cell(BURSTS, "this addon", 2),
        "burst median OCA": _cell(BURSTS, "OCA addon", 2),
        "burst p99": _cell(BURSTS, "this addon", 3),
        "burst p99 OCA": _cell(BURSTS, "OCA addon", 3),
        "one more worker": _cell(CONNECTIONS, "this addon", 3),
    }
    found["backups plain"], found["backups here"] = _backups()
    for name, row in (
        ("direct", "no pooler"),
        ("entry", "session entry"),
        ("OCA", "OCA addon"),
        ("here", "this addon"),
    ):
        found[f"killed {name}"] = _seconds(KILLED, row, 0)
    for name, row in zip(("direct", "plain", "entry", "OCA", "here"), NAMES.values()):
        found[f"connections {name}"] = _range(row, 1)
        found[f"three {name}"] = _range(row, 6)
    return found


def with_figures(text: str) -> str:
    """A page with its figures up to date: those that it names, defined at its end."""
    if BEGIN_FIGURES not in text:
        return text
    page, _old = text.split(BEGIN_FIGURES)
    lines = [
        f".. |{name}| replace:: {value}" for name, value in figures().items() if f"|{name}|" in page
    ]
    return "\n".join([page + BEGIN_FIGURES, "", *lines, "", END_FIGURES, ""])


def _between(path: pathlib.Path, begin: str, end: str, new: str) -> str:
    """The text of a file, with ``new`` between two marks."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _old, after = rest.split(end)
    return f"{before}{begin}\n\n{new}\n{end}{after}"


def addon_readme() -> str:
    parts = [f"{'=' * len(TITLE)}\n{TITLE}\n{'=' * len(TITLE)}\n", MADE]
    for name, title in FRAGMENTS.items():
        if title:
            parts.append(f"{title}\n{'=' * len(title)}\n")
        parts.append((ADDON / "readme" / f"{name}.rst").read_text(encoding="utf-8"))
        if name == "CONFIGURE":
            parts.append(settings_table())
    return "\n".join(parts)


def apps_page() -> str:
    """The body alone: Odoo Apps puts its own page around it."""
    parts = publish_parts(
        addon_readme(),
        writer="html5",
        settings_overrides={"initial_header_level": 2, "syntax_highlight": "none"},
    )
    return (
        '<section class="oe_container">\n'
        '<p><img src="icon.png" alt="" width="96" height="96"/></p>\n'
        f"<h1>{TITLE}</h1>\n{parts['body']}"
        "<p>Two browsers in the same chat behind PgBouncer. In both pictures Alice <em>has</em>"
        " sent messages. Bob's screen without the addon:</p>\n"
        '<p><img src="without.png" alt="Bob\'s chat stays empty until he reloads"/></p>\n'
        "<p>and with it:</p>\n"
        '<p><img src="with.png" alt="The messages appear at once"/></p>\n'
        "</section>\n"
    )


def neighbours_table() -> str:
    """Return the table of what was run beside the addon."""
    kept = json.loads((CHECKOUT / "docs" / "neighbours.json").read_text(encoding="utf-8"))
    rows = [["beside this addon", "version", "Odoo", "loaded before", "loaded after", "run on"]]
    for _key, row in sorted(kept.items()):
        cells = []
        for found in (row["before"], row["after"]):
            cron = "" if found["cron"] else ", cron is late"
            bad = f"{found['delivered']} of 100{cron}, ready: {found['ready']}: {found['why']}"
            fine = found["delivered"] == 100 and found["cron"] and found["ready"] == 200
            cells.append("✓" if fine else bad.rstrip(": "))
        rows.append([row["name"], row["version"] or "–", row["odoo"], *cells, row["date"]])
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [("   * - " if i == 0 else "     - ") + cell for i, cell in enumerate(row)]
    return "\n".join(lines)


def made() -> dict[pathlib.Path, str]:
    """Return the content of each file that is made."""
    docs = CHECKOUT / "docs"
    measured, missed, page, run, beside = (
        docs / f"{name}.rst"
        for name in ("figures", "figures-missed", "settings", "compatibility", "neighbours")
    )
    found = {
        measured: _between(measured, BEGIN_RESULTS, END_RESULTS, results(after_a_loss=False)),
        missed: _between(missed, BEGIN_RESULTS, END_RESULTS, results(after_a_loss=True)),
        page: _between(page, BEGIN, END, settings_table()),
        run: _between(run, BEGIN_MATRIX, END_MATRIX, matrix_table()),
        beside: _between(beside, BEGIN_NEIGHBOURS, END_NEIGHBOURS, neighbours_table()),
    }
    for name in [CHECKOUT / "README.rst", *docs.glob("*.rst")]:
        text = found.get(name) or name.read_text(encoding="utf-8")
        if BEGIN_FIGURES in text:
            found[name] = with_figures(text)
    return {
        **found,
        ADDON / "README.rst": addon_readme(),
        ADDON / "static" / "description" / "index.html": apps_page(),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(CHECKOUT)}")
