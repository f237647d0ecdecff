"""A function of Odoo that is not where the table says."""

import shutil

import pytest

from ..stack import series
from ..stack.odoo import CHECKOUT
from .conftest import running

BUS = ('"ImDispatch.loop"', '"ImDispatch.loop_of_tomorrow"')
TOOLS = ('"exec_pg_environ"', '"exec_pg_environ_of_tomorrow"')
NOTIFY = ('inner_function="notify"', 'inner_function="notify_of_tomorrow"')
LIST = ('"list_dbs"', '"list_dbs_of_tomorrow"')
CRON = ('"ThreadedServer.cron_thread"', '"ThreadedServer.cron_thread_of_tomorrow"')


def renamed(tmp_path, *names):
    """An addons path with a copy of the addon whose table looks for other functions."""
    shutil.copytree(CHECKOUT / "bus_alt_connection", tmp_path / "bus_alt_connection")
    targets = tmp_path / "bus_alt_connection" / "integration" / "odoo_functions.py"
    text = targets.read_text()
    for old, new in names:
        assert old in text
        text = text.replace(old, new)
    targets.write_text(text)
    return {"addons_path": f"{series.ADDONS},{tmp_path}"}


def errors(site):
    return [line for line in site.odoo.log().splitlines() if "bus_alt_connection found no" in line]


def test_a_bus_that_moved(deployment, tmp_path):
    options = {**deployment.direct_settings, "max_cron_threads": 1}
    with running(deployment, options=options, **renamed(tmp_path, BUS)) as site:
        bus = [line for line in errors(site) if "odoo.addons.bus.models.bus" in line]
        assert "ImDispatch.loop_of_tomorrow" in bus[0]
        assert f"Odoo {series.SERIES}" in bus[0]
        assert " ERROR " in bus[0]
        assert site.deliver(5, timeout=5) == 0
        # it is noticed where it happens, too
        site.says("LISTEN imbus went to an ordinary connection")
        assert site.odoo.ready().status_code == 503
        if series.CRON_LISTENS:
            assert site.starts(10)
        done = site.odoo.buscheck()
        assert done.returncode == 1
        assert "ImDispatch.loop_of_tomorrow" in done.stdout


def test_a_list_of_databases_that_moved(deployment, tmp_path):
    """All are asked for, but which these are is not known."""
    options = {"options": deployment.direct_settings, **renamed(tmp_path, LIST)}
    with deployment.odoo(start=False, **options) as odoo:
        done = odoo.buscheck("--all")
        assert done.returncode == 1
        assert "list_dbs_of_tomorrow" in done.stdout, done.stderr
        assert "a NOTIFY on the pooled connection was heard at" in done.stdout


def test_a_sender_that_moved(deployment, tmp_path):
    with running(
        deployment, options=deployment.direct_settings, **renamed(tmp_path, NOTIFY)
    ) as site:
        assert all("each commit waits for this NOTIFY" in line for line in errors(site))
        assert errors(site)
        assert site.deliver(5) == 5


@pytest.mark.slow
@pytest.mark.skipif(not series.CRON_LISTENS, reason="no cron listener before 15.0")
def test_cron_and_tools_that_moved(deployment, tmp_path):
    options = {**deployment.direct_settings, "max_cron_threads": 1}
    with running(deployment, options=options, **renamed(tmp_path, CRON, TOOLS)) as site:
        found = "\n".join(errors(site))
        assert "odoo.service.server.ThreadedServer.cron_thread_of_tomorrow" in found
        assert "odoo.tools.misc.exec_pg_environ_of_tomorrow" in found
        assert site.deliver() == 100
        site.says("LISTEN cron_trigger went to an ordinary connection")
