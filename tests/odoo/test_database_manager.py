"""Backup and restore through the database manager leave other users alone."""

import contextlib
import io
import zipfile

import pytest
import requests

from ..stack import manager, series
from ..stack.deployment import running_deployment
from ..stack.odoo import ROLE
from ..stack.postgres import POSTGRESQL, Postgres
from ..stack.process import wait_until
from ..stack.users import LoadingSessions, Users

RESTORED = "restored"

# in place of a tool: writes down where it goes, as whom, then is the tool
SPY = """#!/bin/sh
echo "$PGUSER@$PGHOST:$PGPORT" >>{places}
exec {tool} "$@"
"""


@pytest.fixture
def spied(tmp_path):
    """A folder for Odoo's ``pg_path``; ``places`` in it has where the tools went, and as whom."""
    for name in ("pg_dump", "pg_restore", "psql"):
        tool = tmp_path / name
        tool.write_text(SPY.format(places=tmp_path / "places", tool=POSTGRESQL / "tools" / name))
        tool.chmod(0o755)
    return tmp_path


def places(spied) -> set:
    return set((spied / "places").read_text().split())


@pytest.mark.parametrize(
    "addon, workers",
    [
        pytest.param(False, 0, marks=pytest.mark.slow),
        pytest.param(True, 0, marks=pytest.mark.smoke),
        pytest.param(True, 2, marks=[pytest.mark.smoke, pytest.mark.slow]),
    ],
    ids=["stock", "threaded", "prefork"],
)
def test_backups_while_others_query(addon, workers):
    # server connections that stock Odoo spoils must not reach other tests
    with running_deployment() as whole:
        options = {**whole.direct_settings, **manager.OPTIONS}
        with whole.odoo(addon=addon, workers=workers, options=options) as odoo:
            backups = []
            with Users(whole.pooled, odoo.database) as users:
                for _i in range(3):
                    # stock Odoo may be its own victim
                    with contextlib.suppress(*([] if addon else [RuntimeError])):
                        backups.append(manager.backup(odoo))
            assert users.done > 1000
            if addon:
                assert len(backups) == 3
                assert users.errors == []
                for content in backups:
                    dump = zipfile.ZipFile(io.BytesIO(content)).read("dump.sql")
                    assert b"PostgreSQL database dump complete" in dump
            else:
                assert any("res_users" in error for error in users.errors)


@pytest.mark.parametrize("backup_format", ["zip", pytest.param("dump", marks=pytest.mark.slow)])
def test_a_backup_restores_and_nobody_notices(deployment, backup_format, spied):
    options = {**deployment.direct_settings, **manager.OPTIONS, "pg_path": spied}
    with deployment.odoo(options=options) as odoo:
        content = manager.backup(odoo, backup_format)
        try:
            with Users(deployment.pooled, odoo.database) as users:
                manager.restore(odoo, RESTORED, content)
                enough = users.done + 1000
                wait_until(lambda: users.done > enough or users.errors, "1,000 queries")
            assert users.errors == []
            rows = deployment.postgres.execute(
                "SELECT count(*) FROM ir_module_module WHERE state = 'installed'", dbname=RESTORED
            )
            assert rows[0][0] > 3
            assert places(spied) == {f"{ROLE}@127.0.0.1:{deployment.postgres.port}"}
        finally:
            deployment.pgbouncer.forget(RESTORED)
            deployment.postgres.execute(f'DROP DATABASE IF EXISTS "{RESTORED}" WITH (FORCE)')


def test_a_role_that_may_only_listen_neither_dumps_nor_restores(deployment, spied):
    """Odoo's own role does, on the primary, although a standby that lags is named first."""
    deployment.postgres.create_role("listener", "password-of-listener", "")
    # it will not have the new database
    lag = {"recovery_min_apply_delay": "1h"}
    standby = Postgres(deployment.folder / "standby", primary=deployment.postgres, options=lag)
    standby.start()
    options = {
        **manager.OPTIONS,
        "pg_path": spied,
        "imdispatcher_db_host": "127.0.0.1,127.0.0.1",
        "imdispatcher_db_port": f"{standby.port},{deployment.postgres.port}",
        "imdispatcher_db_user": "listener",
        "imdispatcher_db_password": "password-of-listener",
    }
    name = f"{RESTORED}_too"
    try:
        with deployment.odoo(options=options) as odoo:
            content = manager.backup(odoo)
            manager.restore(odoo, name, content)
            assert places(spied) == {f"{ROLE}@127.0.0.1:{deployment.postgres.port}"}
            owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
            assert deployment.postgres.execute(owners, dbname=name) == [(ROLE,)]
            page = requests.get(f"{odoo.url}/web/login?db={name}", timeout=60)
            assert page.ok
            with LoadingSessions(deployment) as watched:
                odoo.run("-d", name, "-u", "bus", "--stop-after-init")
            assert watched.roles == {ROLE}
    finally:
        standby.stop()
        deployment.pgbouncer.forget(name)
        deployment.postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.mark.slow
@pytest.mark.skipif(not series.HAS_DB_COMMAND, reason="this series has no command db")
def test_the_command_db_with_postgresql_named(deployment, tmp_path):
    """It loads no addon: README says to name PostgreSQL on its command line."""
    with deployment.odoo(options=deployment.direct_settings) as odoo:
        path = deployment.direct
        place = [f"--db_host={path.host}", f"--db_port={path.port}"]
        with Users(deployment.pooled, odoo.database) as users:
            for i in range(3):
                dump = tmp_path / f"{i}.zip"
                odoo.run_command("db", *place, "dump", odoo.database, dump)
                assert zipfile.is_zipfile(dump)
        assert users.errors == []


def test_the_password_is_in_no_command_line(deployment):
    """pg_dump gets it in its environment; the wrapper writes down its arguments."""
    spied = deployment.folder / "spied"
    spied.mkdir()
    arguments = spied / "arguments"
    tool = spied / "pg_dump"
    tool.write_text(f'#!/bin/sh\nenv | grep ^PG >{arguments}.env\necho "$@" >{arguments}\nexit 1\n')
    tool.chmod(0o755)
    options = {**deployment.direct_settings, **manager.OPTIONS, "pg_path": spied}
    with deployment.odoo(options=options) as odoo, pytest.raises(RuntimeError):
        manager.backup(odoo)
    assert deployment.password not in arguments.read_text()
    lines = (spied / "arguments.env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines)
    assert environ["PGHOST"] == deployment.direct.host
    assert environ["PGPORT"] == str(deployment.direct.port)
    assert environ["PGPASSWORD"] == deployment.password
    assert deployment.password not in odoo.log()
