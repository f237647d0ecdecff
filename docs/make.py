"""``./run docs``: make what is made from something else.

* the table of settings in docs/settings.rst, from ``bus_alt_connection/settings.py``;
* ``bus_alt_connection/README.rst`` and ``static/description/index.html`` (the page on Odoo Apps),
  from the fragments in ``bus_alt_connection/readme/`` and the same table.

``tests/odoo/test_docs.py`` fails where a file differs from what this would write.
"""

from __future__ import annotations

import pathlib

from docutils.core import publish_parts

from bus_alt_connection import settings

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
ADDON = CHECKOUT / "bus_alt_connection"
TITLE = "Bus Alternative Connection"
BEGIN = ".. begin: settings, from settings.py"
END = ".. end: settings"
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
        "     - where it is not set",
    ]
    for option, (meaning, default) in settings.MEANINGS.items():
        lines += [
            f"   * - ``{option}``",
            f"     - ``{option.upper()}``",
            f"     - {meaning}",
            f"     - ``{default}``",
        ]
    lines += [
        f"   * - ``{settings.DB}<any keyword of libpq>``",
        f"     - ``{settings.DB.upper()}<KEYWORD>``",
        "     - what else libpq knows: ``sslrootcert``, ``service``, ``keepalives_idle``, …",
        "     - libpq's default; 10 s to connect, keepalives after 10 s",
    ]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """docs/settings.rst with the table of settings between its marks."""
    text = (CHECKOUT / "docs" / "settings.rst").read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _old, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{settings_table()}\n{END}{after}"


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
    return {
        CHECKOUT / "docs" / "settings.rst": settings_page(),
        ADDON / "README.rst": addon_readme(),
        ADDON / "static" / "description" / "index.html": apps_page(),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(CHECKOUT)}")
