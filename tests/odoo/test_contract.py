"""What the addon relies on in Odoo's source, read without running it.

``./run test --odoo PATH tests/odoo/test_contract.py`` checks any series.
"""

import ast
import re

import pytest

from bus_alt_connection.integration.odoo_functions import (
    TARGETS,
    ListenTarget,
    ReplaceTarget,
    SendTarget,
)

from ..stack import series

# other people's addons are not in Odoo's source
ROWS = [row for row in TARGETS if row.since <= series.NUMBER <= row.until and not row.addon]
NAMES = sorted({row.name for row in ROWS if isinstance(row, ListenTarget)})
SENDING = sorted({row.name for row in ROWS if isinstance(row, SendTarget)})
ALL_REPLACED = sorted({row.name for row in ROWS if isinstance(row, ReplaceTarget)})


def source(module: str):
    """The parsed source of a module, or None."""
    relative = module.replace(".", "/")
    for path in (
        series.ODOO_PATH / f"{relative}.py",
        series.ODOO_PATH / f"{relative.replace('odoo/addons', 'addons', 1)}.py",
        series.ODOO_PATH / relative / "__init__.py",
    ):
        if path.exists():
            return ast.parse(path.read_text())
    return None


def find(tree, dotted: str):
    """The class or function of this name, with the class that holds it."""
    holder = None
    for name in dotted.split("."):
        holder, tree = (
            tree,
            next(
                (
                    node
                    for node in (tree.body if tree else ())
                    if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name
                ),
                None,
            ),
        )
    return tree, holder


def place(name: str):
    """The function that listens or sends, the class that holds it, and its row."""
    for row in ROWS:
        if row.name == name:
            function, holder = find(source(row.module), row.function)
            inner_function = getattr(row, "inner_function", "")
            if function and inner_function:
                inner = (node for node in ast.walk(function) if isinstance(node, ast.FunctionDef))
                function = next((node for node in inner if node.name == inner_function), None)
            if function:
                return function, holder, row
    raise AssertionError(f"{name}: none of the places in the table is there")


def attributes(node) -> set:
    return {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}


@pytest.mark.parametrize("name", [*NAMES, *SENDING])
def test_it_connects_through_db_connect_in_its_own_body(name):
    function, _holder, _row = place(name)
    nested = {
        child
        for inner in ast.walk(function)
        if inner is not function and isinstance(inner, (ast.FunctionDef, ast.Lambda))
        for child in ast.walk(inner)
    }
    calls = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and node not in nested
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "db_connect"
    ]
    assert len(calls) == 1
    (call,) = calls
    assert ast.unparse(call.func.value) in ("odoo.sql_db", "sql_db")
    (database,) = call.args
    text = ast.unparse(database)
    assert text == "'postgres'" or "db_system" in text, "the database that NOTIFY is sent in"


@pytest.mark.parametrize("name", NAMES)
def test_it_waits_on_the_connection_behind_the_cursor(name):
    function, holder, row = place(name)
    # a cron worker connects in start and waits in sleep
    used = attributes(holder if name == "cron worker" else function)
    assert {"cursor", "_cnx", "poll", "commit"} <= used
    if series.NUMBER >= 19 or name == "bus":  # older cron loops look at all databases
        assert "notifies" in used
    listens = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and str(node.value).lower() == f"listen {row.channel}"
    ]
    assert len(listens) == 1


def test_the_bus_keeps_its_subscriptions_where_the_table_says():
    """Without them, what was sent while nobody listened is not shown."""
    _function, _holder, row = place("bus")
    instance, name = row.subscriptions.split(".")
    tree = source(row.module)
    assigned = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert instance in assigned
    assert name in attributes(tree)


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_its_cursor_for_nothing_that_ours_has_not(name):
    function, _holder, _row = place(name)
    cursors = {"cr", "dbcursor"}
    used = {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id in cursors)
            or (isinstance(node.value, ast.Attribute) and node.value.attr in cursors)
        )
    }
    assert used <= {"_cnx", "execute", "fetchone", "commit", "rollback", "close"}
    queries = {
        node.args[0].value
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "execute"
    }
    known = ("listen ", "set ", "select pg_is_in_recovery()")
    assert all(query.lower().startswith(known) for query in queries), queries


@pytest.mark.parametrize("name", SENDING)
def test_it_sends_and_asks_for_no_answer(name):
    function, _holder, _row = place(name)
    (block,) = (node for node in ast.walk(function) if isinstance(node, ast.With))
    (cursor,) = block.items
    assert ast.unparse(cursor.context_expr).endswith(".cursor()")
    own = {
        node.attr
        for node in ast.walk(block)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == cursor.optional_vars.id
    }
    assert own == {"execute"}


def test_nobody_else_sends():
    """A commit would wait for a NOTIFY that the table does not know."""
    known = {place(name)[0].name for name in SENDING}
    sends = re.compile(r"(notify (imbus|cron_trigger)|select .*\('(imbus|cron_trigger)').*", re.I)
    found = set()
    for module in {row.module for row in ROWS if isinstance(row, SendTarget)}:
        for function in ast.walk(source(module)):
            if isinstance(function, ast.FunctionDef):
                constants = [node for node in ast.walk(function) if isinstance(node, ast.Constant)]
                if any(sends.fullmatch(str(node.value)) for node in constants):
                    found.add(function.name)
    holders = {row.function.split(".")[-1] for row in ROWS if isinstance(row, SendTarget)}
    assert found - holders | known == known


def test_a_registry_connects_once_and_keeps_it():
    """What it keeps is what its modules are loaded on, at once or later."""
    function, holder, _row = place("registries")
    kept = [
        node
        for node in ast.walk(function)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and "db_connect(db_name" in ast.unparse(node)
    ]
    assert "self._db" in ast.unparse(kept[0])
    assert all("readonly=True" in ast.unparse(node) for node in kept[1:])
    cursor, _holder = find(holder, "cursor")
    assert "self._db.cursor()" in ast.unparse(cursor)


def test_whether_modules_are_updated_is_told():
    """To load_modules, by name or as the last of its arguments."""
    function, _holder = find(source("odoo.modules.loading"), "load_modules")
    arguments = [argument.arg for argument in function.args.args + function.args.kwonlyargs]
    assert "update_module" in arguments
    assert "update_module" in arguments[3:4] or function.args.kwonlyargs


def test_what_a_load_sets_for_its_session_is_known():
    """A statement that the addon does not know would stay on a pooled connection."""
    known = ("SET SESSION lock_timeout", "SELECT pg_advisory_lock")
    for module in ("odoo.modules.loading", "odoo.modules.registry", "odoo.orm.registry"):
        for node in ast.walk(source(module) or ast.parse("")):
            text = str(node.value) if isinstance(node, ast.Constant) else ""
            if "pg_advisory" in text or text.upper().startswith("SET SESSION"):
                assert text.startswith(known), text


@pytest.mark.parametrize("name", ALL_REPLACED)
def test_functions_that_are_replaced(name):
    for row in (row for row in ROWS if row.name == name):
        tree = source(row.module)
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree or ast.parse(""))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        function, _holder = find(tree, row.function)
        if function or row.function in imported:
            return
        if "*" in imported and find(source("odoo.tools.misc"), row.function)[0]:
            return
    raise AssertionError(f"{name}: none of the places in the table is there")


@pytest.mark.skipif(series.NUMBER != 16, reason="others are not replaced")
def test_a_websocket_is_woken_through_its_sockets():
    _function, holder, _row = place("websockets")
    assert {"__notif_sock_r", "__notif_sock_w"} <= attributes(holder)


def test_nobody_else_listens():
    """A LISTEN that the table does not know would go deaf in silence."""
    known = {row.module for row in ROWS if isinstance(row, ListenTarget)}
    folders = [series.ODOO_PATH / "odoo" / "service", series.ODOO_PATH / "odoo" / "addons" / "bus"]
    folders.append(series.ODOO_PATH / "addons" / "bus")
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and str(node.value).lower().startswith("listen "):
                assert any(str(path).endswith(f"{m.replace('.', '/')[5:]}.py") for m in known), path
