# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Which rows of the table of targets are true in this Odoo."""

from __future__ import annotations

import importlib
import inspect
import operator
import re
from types import CodeType
from typing import Mapping, NamedTuple

from odoo.release import version, version_info
from odoo.tools import config

from . import targets
from .targets import ListenTarget, ReplaceTarget, SendTarget, Target

# the number of the series: version_info begins with 19, or with "saas~19"
SERIES = int(re.search(r"\d+", str(version_info[0])).group())

NOT_FOUND = "bus_alt_connection found no {0.module}.{0.function} in Odoo {1} ({0.name}): {2}"
ADDON_NOT_FOUND = "{0} is in server_wide_modules, but {1}: nothing is done for {0}"
CONSEQUENCE = {
    ListenTarget: "this LISTEN stays on the pooled connection and goes deaf there",
    SendTarget: "each commit waits for this NOTIFY",
}


class Resolution(NamedTuple):
    """The table of targets, compared with this Odoo."""

    found: Mapping[str, Target]  # by name
    missing: list[str]  # a line for each row that is not there, nor any other of its name
    unloadable: list[str]  # a line for each addon of others that should be loaded, and cannot be


def resolve() -> Resolution:
    """Compare the table of targets with this Odoo; load the addons of others that it is about."""
    failures = _load_other_addons()
    rows = [row for row in targets.TARGETS if _applies(row, failures)]
    found: dict[str, Target] = {}
    for row in rows:
        if row.name not in found and _is_there(row):
            found[row.name] = row
    return Resolution(
        found,
        [
            NOT_FOUND.format(row, version, CONSEQUENCE.get(type(row), "it stays as it is"))
            for row in rows
            if row.name not in found
        ],
        [ADDON_NOT_FOUND.format(addon, why) for addon, why in failures.items() if why],
    )


def import_attribute(module: str, name: str = ""):
    """Return what a module has under this name, which may have dots; without one, the module.

    :raises ImportError: where the module is not there
    :raises AttributeError: where the name is not
    """
    imported = importlib.import_module(module)
    return operator.attrgetter(name)(imported) if name else imported


def code_of(row: Target) -> CodeType:
    """Return the code of the function that a row is about.

    :raises AttributeError: where it is not there
    :raises ImportError: nor its module
    """
    code = inspect.unwrap(import_attribute(row.module, row.function)).__code__
    inner_function = getattr(row, "inner_function", "")
    if not inner_function:
        return code
    for constant in code.co_consts:  # the code of nested functions is among the constants
        if inspect.iscode(constant) and constant.co_name == inner_function:
            return constant
    raise AttributeError(f"{row.function} has no function {inner_function}")


def server_wide_modules() -> list[str]:
    """Return the addons that this Odoo loads server-wide."""
    # a list from 19.0 on
    return re.findall(r"\w+", str(config["server_wide_modules"]))


def _applies(row: Target, failures: Mapping[str, str]) -> bool:
    """Tell whether a row is about this Odoo."""
    addon_is_there = not row.addon or failures.get(row.addon) == ""
    return row.since <= SERIES <= row.until and addon_is_there


_failures: dict[str, str] = {}  # Odoo logs each failure: an addon is loaded once


def _load_other_addons() -> Mapping[str, str]:
    """Load the addons of others that the table is about, and return why each failed, if it did.

    Their turn may come later, and from 17.0 on Odoo then leaves out the post_load of what is
    imported already: so they are loaded as Odoo loads them.
    """
    load = import_attribute("odoo.modules.module", "load_openerp_module")
    wanted = {row.addon for row in targets.TARGETS if row.addon in server_wide_modules()}
    for addon in sorted(wanted - _failures.keys()):
        _failures[addon] = ""
        try:
            load(addon)
        except Exception as error:  # it may raise anything
            absent = getattr(error, "name", "") == f"odoo.addons.{addon}"
            why = f"cannot be imported: {str(error) or type(error).__name__}"
            _failures[addon] = "was not found in addons_path" if absent else why
    return _failures


def _is_there(row: Target) -> bool:
    try:
        code = code_of(row)
    except Exception:  # another addon may raise anything
        return False
    # one that no longer connects itself does not listen, send or load any more
    return isinstance(row, ReplaceTarget) or "db_connect" in code.co_names
