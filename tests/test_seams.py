"""A function of Odoo that is not where the table says."""

import shutil

import pytest

from .stack import series
from .stack.odoo import CHECKOUT
from .stack.process import wait_until
from .test_cron import CRON, LATE, starts

BUS = ('"ImDispatch.loop"', '"ImDispatch.loop_of_tomorrow"')
MOVED_CRON = ('"ThreadedServer.cron_thread"', '"ThreadedServer.cron_thread_of_tomorrow"')
TOOLS = ('"exec_pg_environ"', '"exec_pg_environ_of_tomorrow"')


def renamed(tmp_path, old: str, new: str):
    """An addons path with a copy of the addon whose table looks for another function."""
    shutil.copytree(CHECKOUT / "bus_alt_connection", tmp_path / "bus_alt_connection")
    seams = tmp_path / "bus_alt_connection" / "seams.py"
    text = seams.read_text()
    assert old in text
    seams.write_text(text.replace(old, new))
    return {"addons_path": f"{series.ADDONS},{tmp_path}"}


def errors(odoo):
    return [line for line in odoo.log().splitlines() if " ERROR " in line]


def test_a_bus_that_moved(deployment, deliver, tmp_path):
    with deployment.odoo(options={**deployment.direct, **CRON}, **renamed(tmp_path, *BUS)) as odoo:
        (error,) = [line for line in errors(odoo) if "imbus" in line]
        assert "odoo.addons.bus.models.bus.ImDispatch.loop_of_tomorrow" in error
        assert f"Odoo {series.SERIES}" in error
        assert deliver(odoo, 5, timeout=5) == 0
        if series.CRON_LISTENS:
            assert starts(odoo, "a job", LATE)


@pytest.mark.skipif(not series.CRON_LISTENS, reason="no cron listener before 15.0")
def test_a_cron_that_moved(deployment, deliver, tmp_path):
    with deployment.odoo(
        options={**deployment.direct, **CRON}, **renamed(tmp_path, *MOVED_CRON)
    ) as odoo:
        name = "odoo.service.server.ThreadedServer.cron_thread_of_tomorrow"
        assert errors(odoo)
        assert all(name in error for error in errors(odoo))
        assert deliver(odoo) == 100


def test_tools_that_moved(deployment, deliver, tmp_path):
    with deployment.odoo(options=deployment.direct, **renamed(tmp_path, *TOOLS)) as odoo:
        assert "odoo.tools.misc.exec_pg_environ_of_tomorrow" in "".join(errors(odoo))
        assert deliver(odoo) == 100
        wait_until(deployment.postgres.listeners, "the dispatcher listens")
