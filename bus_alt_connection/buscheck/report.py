# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the command ``buscheck`` prints, for machines and for people."""

from __future__ import annotations

from typing import Collection

from ..config.parameters import Settings
from ..config.settings import DB_NAME, DB_PREFIX, SECRET
from .checks import Finding, Mark


def report(settings: Settings, findings: Collection[Finding]) -> dict:
    """Return all that the command shows: ``ok``, ``settings``, ``checks`` and a ``verdict``."""
    rows = []
    for keyword, text in settings.listener.items():
        given = settings.given.get(DB_NAME if keyword == "dbname" else DB_PREFIX + keyword)
        source = given.source if given else "Odoo's own or the addon's default"
        value = "(set)" if SECRET.search(keyword) else text
        rows.append({"name": keyword, "value": value, "source": source})
    failed = [finding.text for finding in findings if finding.mark is Mark.FAILED]
    verdict = f"Notifications do NOT arrive: {failed[0]}" if failed else "Notifications arrive."
    checks = [finding._replace(mark=finding.mark.value)._asdict() for finding in findings]
    return {"ok": not failed, "settings": rows, "checks": checks, "verdict": verdict}


def format_report(shown: dict) -> str:
    """Return the report as text."""
    lines = ["{name:<21} {value:<27} {source}".format(**row) for row in shown["settings"]] + [""]
    for check in shown["checks"]:
        lines.append("{mark} {text}".format(**check))
        lines += [f"    {check['advice']}"] * bool(check["advice"])
    return "\n".join([*lines, "", shown["verdict"]])
