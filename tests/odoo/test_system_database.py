"""imdispatcher_db_name: LISTEN and NOTIFY in another database than postgres.

A server with db_name looks into postgres before it loads any addon, so these have dbfilter.
"""

import functools
import re

import pytest
import requests

from ..stack import manager, series
from ..stack.deployment import running_deployment
from ..stack.odoo import DATABASE, ROLE
from ..stack.process import accepts
from .conftest import Site, running
from .test_loading import left_behind, upgrade


@pytest.fixture(scope="module")
def closed():
    """A cluster whose database postgres lets nobody in, with a database bus instead."""
    with running_deployment() as whole:
        whole.postgres.execute("CREATE DATABASE bus OWNER odoo")
        whole.postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        yield whole


def test_without_it_odoo_finds_no_database(closed):
    with closed.odoo(closed.direct, addon=False, named=False, start=False) as odoo:
        odoo.launch()
        odoo.process.wait_for(lambda: accepts(odoo.port), "the HTTP port answers")
        page = requests.get(f"{odoo.url}/web/login", timeout=60)
        assert not (page.ok and page.url.endswith("/web/login"))


@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["threaded", "prefork"]
)
def test_notifications_and_jobs(closed, workers):
    options = {**closed.direct_settings, "imdispatcher_db_name": "bus", "max_cron_threads": 1}
    with running(closed, workers=workers, options=options, named=False) as site:
        assert site.deliver() == 100
        assert "database bus, backend" in site.odoo.log()
        if series.CRON_LISTENS:
            # the second starts after cron has looked at all databases that are listed
            assert site.starts(10) and site.starts(10)
        assert "permission denied" not in site.odoo.log()
        polled = r" on database bus|relation .* does not exist"
        assert not [line for line in site.odoo.log().splitlines() if re.search(polled, line)]


def test_it_is_not_shown_as_a_database_of_odoos(closed):
    everything = {**manager.OPTIONS, "dbfilter": ".*"}
    options = {**closed.direct_settings, **everything, "imdispatcher_db_name": "bus"}
    with closed.odoo(options=options, named=False) as odoo:
        page = requests.get(f"{odoo.url}/web/database/manager", timeout=60).text
        assert odoo.database in page
        assert ">bus<" not in page.replace("\n", "").replace(" ", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["template1", "postgres://x"])
def test_bad_names_stop_the_server(closed, name):
    options = {**closed.direct_settings, "imdispatcher_db_name": name}
    with closed.odoo(options=options, named=False, start=False) as odoo:
        done = odoo.run(check=False, timeout=60)
    assert done.returncode != 0
    assert "bad setting imdispatcher_db_name (from" in done.stderr
    # a URL may hold a password
    shown = "(not shown)" if "://" in name else repr(name)
    assert f"in odoo.conf): {shown}" in done.stderr


@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["threaded", "prefork"]
)
def test_an_account_that_has_odoos_own_database_alone(closed, workers):
    """LISTEN and NOTIFY are in that one, which Odoo lists all the same."""
    options = {**closed.direct_settings, **manager.OPTIONS, "max_cron_threads": 1}
    with closed.odoo(workers=workers, options=options, named=False, start=False) as odoo:
        odoo.environ["IMDISPATCHER_DB_NAME"] = odoo.database
        odoo.start()
        site = Site(closed, odoo)
        assert site.deliver() == 100
        assert f"database {site.odoo.database}, backend" in site.odoo.log()
        if series.CRON_LISTENS:
            assert site.starts(10) and site.starts(10)
        upgrade(site.odoo, "bus")
        assert len(manager.backup(site.odoo)) > 100_000
        site.close()


@pytest.mark.skipif(series.NUMBER < 15, reason="before 15.0 a load sets nothing")
def test_odoos_own_database_is_called_postgres():
    """It is the system database, too; nothing of a load stays on its pooled connections."""
    with running_deployment() as servers:
        execute = functools.partial(servers.postgres.execute, dbname="template1")
        servers.pgbouncer.forget("postgres")
        execute("ALTER DATABASE postgres RENAME TO away")
        execute(f'CREATE DATABASE postgres TEMPLATE "{DATABASE}" OWNER "{ROLE}"')
        options = {"imdispatcher_db_host": "auto", "dbfilter": "^postgres$", "max_cron_threads": 1}
        with servers.odoo(named=False, start=False, workers=2, options=options) as odoo:
            for page in range(3):
                odoo.start()
                for _time in range(6):
                    requests.get(f"{odoo.url}/web/login?db=postgres&page={page}", timeout=60)
                assert left_behind(servers, "postgres") == 0
                odoo.stop()
