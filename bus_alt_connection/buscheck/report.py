# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the command ``buscheck`` prints, for machines and for people."""

from __future__ import annotations

from typing import Collection

from ..config.parameters import Settings
from ..config.settings import DB_NAME
from ..config.values import DB_PREFIX, SECRET
from .finding import Finding, Mark


def report(settings: Settings, findings: Collection[Finding]) -> dict:
    """Return all that the command shows: ``ok``, ``settings``, ``checks`` and a ``verdict``."""
    rows = []
    for keyword, text in settings.listener.items():
        given = settings.given.get(DB_NAME if keyword == "dbname" else DB_PREFIX + keyword)
        source = given.source if given else "Odoo's own or the addon's default"
        value = "(set)" if SECRET.search(keyword) else text
        rows.append({"name": keyword, "value": value, "source": source})
    failed = [finding for finding in findings if finding.mark is Mark.FAILED]
    away = [finding.text for finding in failed if finding.about_notifications]
    verdict = "Notifications arrive."
    if away:
        verdict = f"Notifications do NOT arrive: {away[0]}"
    elif failed:
        verdict = f"Notifications arrive, but not all is well: {failed[0].text}"
    checks = [
        {"mark": finding.mark.value, "text": finding.text, "advice": finding.advice}
        for finding in findings
    ]
    return {"ok": not failed, "settings": rows, "checks": checks, "verdict": verdict}


def format_report(shown: dict) -> str:
    """Return the report as text."""
    lines = ["{name:<21} {value:<27} {source}".format(**row) for row in shown["settings"]] + [""]
    for check in shown["checks"]:
        lines.append("{mark} {text}".format(**check))
        lines += [f"    {check['advice']}"] * bool(check["advice"])
    return "\n".join([*lines, "", shown["verdict"]])
