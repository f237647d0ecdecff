"""Updates, backups and chat go where the pooler goes, whatever a database is called there."""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import zipfile

import pytest

from ..stack import manager
from ..stack.deployment import running_deployment
from ..stack.odoo import ROLE
from ..stack.pgbouncer import PgBouncer
from .conftest import running
from .test_loading import left_behind

AUTO = {"imdispatcher_db_host": "auto"}


@pytest.fixture(scope="module")
def servers():
    """Servers whose databases no other test uses."""
    with running_deployment() as deployment:
        yield deployment


@contextlib.contextmanager
def alias(servers, name: str, database: str):
    """A PgBouncer that calls this database by another name."""
    folder = servers.folder / f"pgbouncer-{secrets.token_hex(4)}"
    pooler = PgBouncer(folder, servers.postgres, servers.pgbouncer.passwords, "", {name: database})
    pooler.start()
    try:
        yield servers.pooled._replace(port=pooler.port)
    finally:
        pooler.stop()


def tables(servers, database: str) -> int:
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    ((number,),) = servers.postgres.execute(query, dbname=database)
    return number


@pytest.mark.parametrize("how", ["named", "auto"])
@pytest.mark.parametrize("namesake", [True, False], ids=["with a namesake", "without"])
def test_an_alias(servers, how, namesake):
    """An update reaches the real database; a backup, which cannot, is refused."""
    name = f"live_{secrets.token_hex(4)}"
    options = AUTO if how == "auto" else servers.direct_settings
    options = {**options, **manager.OPTIONS, "dbfilter": f"^{name}$"}
    with contextlib.ExitStack() as stack:
        odoo = stack.enter_context(servers.odoo(options=options, named=False, start=False))
        if namesake:
            servers.postgres.execute(f'CREATE DATABASE "{name}" OWNER "{ROLE}"')
            drop = f'DROP DATABASE "{name}" WITH (FORCE)'
            stack.callback(servers.postgres.execute, drop)
        db = stack.enter_context(alias(servers, name, odoo.database))
        text = odoo.conf.read_text()
        odoo.conf.write_text(re.sub(r"(?m)^db_port = .*", f"db_port = {db.port}", text))
        before = tables(servers, odoo.database)
        version = "SELECT latest_version FROM ir_module_module WHERE name = 'bus'"
        servers.postgres.execute(
            "UPDATE ir_module_module SET latest_version = '0' WHERE name = 'bus'",
            dbname=odoo.database,
        )
        odoo.run("-d", name, "-u", "bus", "--stop-after-init", "--no-http")
        assert servers.postgres.execute(version, dbname=odoo.database) != [("0",)]
        assert tables(servers, odoo.database) == before
        if namesake:
            assert tables(servers, name) == 0
        odoo.start()
        with pytest.raises(RuntimeError, match=r"database live_\w+ is odoo_"):
            manager.backup(odoo, database=name)


@pytest.mark.smoke
@pytest.mark.parametrize("workers", [0, 2], ids=["threaded", "prefork"])
def test_auto_is_all_that_is_set(servers, workers):
    options = {**AUTO, **manager.OPTIONS, "max_cron_threads": 1}
    with running(servers, options=options, workers=workers) as site:
        assert site.deliver() == 100
        content = manager.backup(site.odoo)
        assert b"database dump complete" in zipfile.ZipFile(io.BytesIO(content)).read("dump.sql")
        site.odoo.run("-u", "bus", "--stop-after-init", "--no-http")
        assert left_behind(servers, site.odoo.database) == 0
        done = site.odoo.buscheck()
        assert done.returncode == 0, done.stdout
        assert f"database {site.odoo.database}: pooled and direct connection lead to" in done.stdout
