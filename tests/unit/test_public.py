"""What operators rely on is as it was in 1.1.0: texts of the log and of pages, names, keys."""

from __future__ import annotations

import ast
import json
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).parent
ADDON = HERE.parents[1] / "bus_alt_connection"
PUBLIC = json.loads((HERE / "public-1.1.0.json").read_text(encoding="utf-8"))

# texts of 1.1.0 that have changed since, each with the reason
CHANGED = {
    "its port: one, or one per host": "auto",
    "where PostgreSQL itself is; separate several hosts by commas": "auto",
    "its password; Odoo's own is sent for ``db_user`` only": "plainer",
    "Odoo's own role, if PostgreSQL knows ``db_user`` by another name": "plainer",
    "``True``: show metrics to Prometheus, and to whoever reaches the port": "plainer",
    "a database that Odoo itself does not use": "imdispatcher_db_name may name Odoo's own",
    "a database that Odoo itself does not use (db_name names it)": "the same",
}
NEW_LOGGERS = {"odoo.addons.bus_alt_connection.manager"}


def sources():
    for path in sorted(ADDON.rglob("*.py")):
        if "tests" not in path.relative_to(ADDON).parts:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def words() -> set:
    """All names of keywords and fields, and all texts, in the addon's source."""
    found = set()
    for _path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def test_public_texts_are_those_of_1_1_0():
    missing = set(PUBLIC["texts"]) - words() - CHANGED.keys()
    assert not missing


def test_loggers_have_names_of_their_own():
    """Operators alert on them: they do not follow the names of files."""
    names = set()
    for _path, tree in sources():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "logging.getLogger":
                names.add(ast.unparse(call.args[0]).strip("'"))
    assert names == {*PUBLIC["loggers"], *NEW_LOGGERS, "name"}, (
        "the last one stands for the access logs"
    )


@pytest.mark.parametrize(
    "page", sorted((ADDON.parent / "docs").glob("*.rst")), ids=lambda p: p.stem
)
def test_loggers_that_pages_name_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"odoo\.addons\.bus_alt_connection\.(\w+)", text):
        assert f"odoo.addons.bus_alt_connection.{name}" in PUBLIC["loggers"]
