# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What ``buscheck`` found, for a person and for a machine."""

from typing import Dict, List, NamedTuple

GOOD, BAD, REMARK = "✓", "✗", "•"
COLOURS = {GOOD: "\33[32m", BAD: "\33[31m", REMARK: "\33[33m"}


class Finding(NamedTuple):
    """One line of the report."""

    mark: str
    text: str
    advice: str = ""  # what to do, with the lines to paste


class Report:
    """All findings, by section."""

    def __init__(self):
        self.settings: List[Dict[str, str]] = []
        self.sections: Dict[str, List[Finding]] = {}

    def add(self, section: str, mark: str, text: str, advice: str = "") -> None:
        self.sections.setdefault(section, []).append(Finding(mark, text, advice))

    @property
    def ok(self) -> bool:
        return not any(f.mark == BAD for part in self.sections.values() for f in part)

    def as_dict(self) -> dict:
        checks = [
            {"section": name, "ok": found.mark != BAD, "text": found.text, "advice": found.advice}
            for name, part in self.sections.items()
            for found in part
        ]
        return {"ok": self.ok, "settings": self.settings, "checks": checks}

    def as_text(self, colour: bool) -> str:
        lines = ["Settings"]
        for row in self.settings:
            lines.append(f"    {row['name']:<12}{row['value']:<32}{row['source']}")
        for name, part in self.sections.items():
            lines += ["", name]
            for mark, text, advice in part:
                shown = f"{COLOURS[mark]}{mark}\33[0m" if colour else mark
                lines.append(f"  {shown} {text}")
                lines += [f"      {line}" for line in advice.splitlines()]
        verdict = "Notifications arrive." if self.ok else "Notifications do NOT arrive."
        return "\n".join([*lines, "", verdict])
