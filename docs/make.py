"""``./run docs``: make what is made from something else.

* the table of settings in docs/settings.rst, from ``bus_alt_connection/config/settings.py``;
* the tables in docs/figures.rst, from ``benchmarks/results.md``, which ``./run bench`` writes;
* the table in README.rst of what was run, from ``docs/matrix.json``, which ``./run matrix`` writes;
* ``bus_alt_connection/README.rst`` and ``static/description/index.html`` (the page on Odoo Apps),
  from the fragments in ``bus_alt_connection/readme/`` and the same table.

``tests/odoo/test_docs.py`` fails where a file differs from what this would write.
"""

from __future__ import annotations

import json
import pathlib
import re
import textwrap

from docutils.core import publish_parts

from bus_alt_connection.config import settings

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
ADDON = CHECKOUT / "bus_alt_connection"
TITLE = "Bus Alternative Connection"
BEGIN = ".. begin: settings, from settings.py"
END = ".. end: settings"
BEGIN_MATRIX = ".. begin: matrix, from docs/matrix.json"
END_MATRIX = ".. end: matrix"
BEGIN_RESULTS = ".. begin: results, from benchmarks/results.md"
END_RESULTS = ".. end: results"
TABLE = r"^## ([^\n]+)\n\n([^\n]+)\n\n```text\n(.+?)```"
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


def results() -> str:
    """The tables of results.md, each with its note and its picture."""
    text = (CHECKOUT / "benchmarks" / "results.md").read_text(encoding="utf-8")
    parts = []
    for title, note, table in re.findall(TABLE, text, re.M | re.S):
        parts += [f"{title}\n{'-' * len(title)}\n", textwrap.fill(note, 115) + "\n"]
        if title in PICTURES:
            picture = f"../benchmarks/{PICTURES[title]}.svg"
            parts.append(f".. image:: {picture}\n   :alt: the table below as a picture\n")
        parts.append(f".. code-block:: text\n\n{textwrap.indent(table, '  ')}")
    return "\n".join(parts)


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
        '<p><img src="with.png" alt="With the addon the message appears at once"/></p>\n'
        "</section>\n"
    )


def made() -> dict[pathlib.Path, str]:
    """Return the content of each file that is made."""
    page, readme = CHECKOUT / "docs" / "settings.rst", CHECKOUT / "README.rst"
    figures = CHECKOUT / "docs" / "figures.rst"
    return {
        figures: _between(figures, BEGIN_RESULTS, END_RESULTS, results()),
        page: _between(page, BEGIN, END, settings_table()),
        readme: _between(readme, BEGIN_MATRIX, END_MATRIX, matrix_table()),
        ADDON / "README.rst": addon_readme(),
        ADDON / "static" / "description" / "index.html": apps_page(),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(CHECKOUT)}")
