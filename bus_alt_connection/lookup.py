# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Which rows of the table of seams are true in this Odoo."""

import functools
import importlib
import inspect
import re
from typing import Dict, List

from odoo.release import version, version_info
from odoo.tools import config

from .seams import LISTENS, REPLACED, SEAMS, SENDS, Seam

# the number of the series: version_info begins with 19, or with "saas~19"
SERIES = int(re.search(r"\d+", str(version_info[0])).group())

NOT_FOUND = "bus_alt_connection found no {0.module}.{0.function} in Odoo {1} ({0.name}): {2}"
ADDON_NOT_FOUND = "{0} is in server_wide_modules, but {1}: nothing is done for {0}"
MEANS = {
    LISTENS: "this LISTEN stays on the pooled connection and goes deaf there",
    SENDS: "each commit waits for this NOTIFY",
}


def find() -> Dict[str, Seam]:
    """Return the seams of this Odoo that are where the table says, by name."""
    # of two rows that are there the first counts
    return {row.name: row for row in reversed(SEAMS) if counts(row) and _is_there(row)}


def what_is_missing() -> List[str]:
    """Return a line for each place in the table that is not there, nor any other of its name."""
    found = find()
    return [
        NOT_FOUND.format(row, version, MEANS.get(row.kind, "it stays as it is"))
        for row in SEAMS
        if counts(row) and row.name not in found
    ]


def addons_not_found() -> List[str]:
    """Return a line for each addon of others that should be loaded, and is not there."""
    missing = {row.addon: _failure(row.addon) for row in SEAMS if row.addon in _loaded()}
    return [ADDON_NOT_FOUND.format(addon, why) for addon, why in missing.items() if why]


def look_up(module: str, *names: str):
    """Return what a module has under these names, one inside the other."""
    return functools.reduce(getattr, names, importlib.import_module(module))


def code(row: Seam):
    """Return the code of the function that a row is about.

    :raises AttributeError: where it is not there
    :raises ImportError: nor its module
    """
    found = inspect.unwrap(look_up(row.module, *row.function.split("."))).__code__
    if row.inside:
        found = {getattr(one, "co_name", ""): one for one in found.co_consts}.get(row.inside)
    return found


def _loaded() -> List[str]:
    # a list from 19.0 on
    return re.findall(r"\w+", str(config["server_wide_modules"]))


def counts(row: Seam) -> bool:
    """Tell whether a row is about this Odoo."""
    there = not row.addon or (row.addon in _loaded() and not _failure(row.addon))
    return row.first <= SERIES <= row.last and there


@functools.lru_cache(maxsize=None)
def _failure(addon: str) -> str:
    """Load an addon of others, and return why that failed, if it did.

    Its turn may come later, and from 17.0 on Odoo then leaves out the post_load of what is imported
    already: so it is loaded as Odoo loads it. Once: Odoo logs each failure.
    """
    try:
        look_up("odoo.modules.module", "load_openerp_module")(addon)
    except Exception as error:  # it may raise anything
        if getattr(error, "name", "") == f"odoo.addons.{addon}":
            return "was not found in addons_path"
        return f"cannot be imported: {str(error) or type(error).__name__}"
    return ""


def _is_there(row: Seam) -> bool:
    try:
        found = code(row)
    except Exception:  # another addon may raise anything
        return False
    # one that no longer connects itself does not listen, send or load any more
    return row.kind == REPLACED or (found is not None and "db_connect" in found.co_names)
