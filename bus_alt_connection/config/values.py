# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A value that the operator set, and the error for one that cannot work."""

from __future__ import annotations

import re
from typing import NamedTuple

PREFIX = "imdispatcher_"
DB_PREFIX = PREFIX + "db_"

SECRET = re.compile(r"password|secret|scram_")


class Secret(str):
    """A password: what shows local variables, in a log or in a report of an error, hides it."""

    def __repr__(self) -> str:
        return "'(hidden)'"

    __sentry_repr__ = __repr__  # what the SDK of Sentry calls, which takes texts as they are


class InvalidSetting(ValueError):
    """A setting that cannot work; its text is one line for the operator."""


class Value(NamedTuple):
    """What the operator set, and where."""

    option: str  # its name in odoo.conf
    text: str
    source: str

    @property
    def keyword(self) -> str:
        """libpq's name for it."""
        return self.option[len(DB_PREFIX) :]

    def invalid(self, allowed: str) -> InvalidSetting:
        """Return the error for a value that cannot work; it never shows a password."""
        shown = repr(self.text)
        # a whole URL or connection string may stand there, with a password
        if SECRET.search(self.option) or re.search("[=@]|://", self.text):
            shown, allowed = "(not shown)", allowed.replace(self.text, "(not shown)")
        return InvalidSetting(
            f"bad setting {self.option} (from {self.source}): {shown}; allowed: {allowed}"
        )
