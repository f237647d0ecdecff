# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Which rows of the table of Odoo's functions are true in this Odoo."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import operator
import re
from types import CodeType
from typing import Callable, Mapping, NamedTuple

from odoo.release import version, version_info
from odoo.tools import config

from . import odoo_functions
from .odoo_functions import ListenTarget, LoadTarget, ReplaceTarget, SendTarget, Target

# the number of the series: version_info begins with 19, or with "saas~19"
SERIES = int(re.search(r"\d+", str(version_info[0])).group())

NOT_FOUND = "bus_alt_connection found no {0.module}.{0.function} in Odoo {1} ({0.name}): {2}"
ADDON_NOT_FOUND = "{0} is in server_wide_modules, but {1}: nothing is done for {0}"
CONSEQUENCE_OF_KIND = {
    ListenTarget: "this LISTEN stays on the pooled connection and goes deaf there",
    SendTarget: "each commit waits for this NOTIFY",
    LoadTarget: "modules are updated on the pooled connection",
}
CONSEQUENCE = {
    odoo_functions.CONNECTIONS: "every LISTEN stays on the pooled connection and goes deaf there",
    odoo_functions.STATEMENTS: "lock_timeout of module updates stays on pooled connections",
    odoo_functions.MODULE_UPDATES: "modules are updated on the pooled connection",
    odoo_functions.REGISTRY_LOCKS: "session locks of module updates stay on pooled connections",
    odoo_functions.REQUESTS: "/bus_alt_connection/ready and metrics are not there",
    odoo_functions.CRON_THREAD_RESTART: "a cron thread may end while PostgreSQL is down",
    odoo_functions.RESTART: "NOTIFY that wait are lost at a restart in place",
    odoo_functions.DATABASES: "the system database is listed, too",
    odoo_functions.CRON_DATABASES: "cron looks into the system database, too",
    odoo_functions.TOOLS: "pg_dump and psql go where db_host points",
    odoo_functions.MANAGER_TOOLS: "pg_dump and psql go where db_host points",
    odoo_functions.OTHER_TOOLS: "pg_dump and psql of other addons go where db_host points",
    odoo_functions.BACKUP: "pg_dump goes where db_host points",
    odoo_functions.RESTORE: "psql and pg_restore go where db_host points",
    odoo_functions.QUEUE_JOB: "queue_job listens and locks on the pooled connection",
}


class Resolution(NamedTuple):
    """The table of Odoo's functions, compared with this Odoo."""

    found: Mapping[str, Target]  # by name
    missing: list[str]  # a line for each row that is not there, nor any other of its name
    unloadable: list[str]  # a line for each addon of others that should be loaded, and cannot be


def resolve() -> Resolution:
    """Compare the table with this Odoo, and load the addons of others that it is about."""
    failures = _load_other_addons()
    rows = [row for row in odoo_functions.TARGETS if _applies(row, failures)]
    found: dict[str, Target] = {}
    for row in rows:
        if row.name not in found and _is_there(row):
            found[row.name] = row
    # of several places in different series the newest is named
    missing = {row.name: row for row in reversed(rows) if row.name not in found}
    return Resolution(
        found,
        [NOT_FOUND.format(row, version, consequence(row)) for row in reversed(missing.values())],
        [ADDON_NOT_FOUND.format(addon, why) for addon, why in failures.items() if why],
    )


def import_attribute(module: str, name: str = ""):
    """Return what a module has under this name, which may have dots; without one, the module.

    :raises ImportError: where the module is not there
    :raises AttributeError: where the name is not
    """
    imported = importlib.import_module(module)
    return operator.attrgetter(name)(imported) if name else imported


def consequence(row: Target) -> str:
    """Return what it means that a function stays as it is."""
    return CONSEQUENCE_OF_KIND.get(type(row)) or CONSEQUENCE.get(row.name, "it stays as it is")


def owner_of(row: Target):
    """Return the module or class whose function a row is about.

    Other addons may have put an object in the place of a class; Odoo's own instances stay what
    they are, so that the class is what counts.

    :raises AttributeError: where it is not there
    :raises ImportError: nor its module
    """
    name = row.function.rpartition(".")[0]
    owner = import_attribute(row.module, name)
    if not name or issubclass(type(owner), type):
        return owner
    for one in object.__subclasses__():
        if (one.__module__, one.__qualname__) == (row.module, name):
            return one
    raise AttributeError(f"{row.module}.{name} is no class")


def function_of(row: Target) -> Callable:
    """Return the function that a row is about; errors as ``owner_of``."""
    owner, name = owner_of(row), row.function.rpartition(".")[2]
    if isinstance(owner, type) and not any(name in vars(each) for each in owner.__mro__):
        raise AttributeError(f"{row.module}.{row.function}")  # else the metaclass is asked
    return getattr(owner, name)


def code_of(row: Target) -> CodeType:
    """Return the code of the function that a row is about, which calls ``db_connect``.

    :raises AttributeError: where it is not there
    :raises ImportError: nor its module
    """
    name = row.function.rpartition(".")[2]
    inner_function = getattr(row, "inner_function", "")
    for code in _codes(function_of(row)):
        if code.co_name != name:
            continue
        constants = code.co_consts if inner_function else [code]
        for constant in constants:  # the code of nested functions is among the constants
            wanted = inspect.iscode(constant) and constant.co_name == (inner_function or name)
            if wanted and "db_connect" in constant.co_names:
                return constant
    raise AttributeError(f"{row.function} does not connect itself")


def _codes(function: Callable) -> list[CodeType]:
    """Return the code of a function, and of those in its closure: other addons wrap functions."""
    codes: list[CodeType] = []
    waiting = [function]
    while waiting:
        each = inspect.unwrap(waiting.pop(0))
        each = getattr(each, "__func__", each)
        code = getattr(each, "__code__", None)
        if inspect.iscode(code) and code not in codes:
            codes.append(code)
            for cell in getattr(each, "__closure__", None) or ():
                with contextlib.suppress(ValueError):  # an empty one has no contents
                    waiting += filter(callable, [cell.cell_contents])
    return codes


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
    wanted = {row.addon for row in odoo_functions.TARGETS if row.addon in server_wide_modules()}
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
        if isinstance(row, ReplaceTarget):
            return callable(function_of(row))
        code_of(row)  # one that no longer connects itself does not listen, send or load any more
    except Exception:  # another addon may raise anything
        return False
    return True
