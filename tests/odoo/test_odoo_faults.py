"""Faults of Odoo alone, as docs/odoo-faults.rst tells them; the addon is never loaded here."""

import contextlib
import time
import xmlrpc.client

import pytest

from ..stack import series
from ..stack.deployment import running_deployment
from ..stack.odoo import Sender
from ..stack.postgres import Postgres
from ..stack.process import wait_until
from .conftest import running
from .test_outbox import away

pytestmark = pytest.mark.slow

ADMIN = "admin"


@pytest.fixture
def whole():
    """Servers that nobody else uses."""
    with running_deployment() as own:
        yield own


class Rpc:
    """Calls as the administrator, each on a connection of its own: any worker may answer."""

    def __init__(self, odoo):
        self._odoo = odoo
        self._uid = self._proxy("common").authenticate(odoo.database, ADMIN, ADMIN, {})

    def _proxy(self, name: str):
        return xmlrpc.client.ServerProxy(f"{self._odoo.url}/xmlrpc/2/{name}", allow_none=True)

    def __call__(self, model: str, method: str, *args, **kwargs):
        models = self._proxy("object")
        return models.execute_kw(
            self._odoo.database, self._uid, ADMIN, model, method, list(args), kwargs
        )


PARAMETER = "odoo_faults.parameter"


def action(rpc: Rpc, value: str) -> int:
    """Make a server action that sets a cached parameter and sends a notification."""
    code = (
        f"env['ir.config_parameter'].set_param('{PARAMETER}', '{value}')\n"
        f"env['bus.bus']._sendone('channel', '{series.MESSAGE_TYPE}', {{}})"
    )
    model = rpc("ir.model", "search", [("model", "=", "res.partner")])[0]
    row = {"name": value, "model_id": model, "state": "code", "code": code}
    return rpc("ir.actions.server", "create", row)


@pytest.mark.skipif(series.NUMBER < 16, reason="the bus is called otherwise")
def test_a_failed_notify_fails_a_saved_request_and_leaves_caches_stale(whole):
    with whole.odoo(workers=2, addon=False) as odoo:
        rpc = Rpc(odoo)

        def values() -> set:
            return {rpc("ir.config_parameter", "get_param", PARAMETER) for _try in range(60)}

        def saved() -> str:
            query = "SELECT value FROM ir_config_parameter WHERE key = %s"
            return whole.postgres.execute(query, [PARAMETER], dbname=odoo.database)[0][0]

        first, second = action(rpc, "first"), action(rpc, "second")
        rpc("ir.actions.server", "run", [first])
        assert values() == {"first"}
        with away(whole), pytest.raises(xmlrpc.client.Fault, match="disabled"):
            rpc("ir.actions.server", "run", [second])
        assert saved() == "second"
        # the worker that saved it knows it, the other one does not
        assert values() == {"first", "second"}


@pytest.mark.skipif(series.NUMBER != 16, reason="not seen in others")
def test_quick_notifications_leave_a_websocket_deaf(whole):
    with running(whole, whole.direct, workers=2, addon=False) as site:
        assert not all(site.hurry(timeout=10) for _try in range(20))


@pytest.mark.skipif(not series.CRON_LISTENS, reason="before 15.0 cron does not listen")
def test_a_cron_thread_ends_when_postgresql_restarts(whole):
    """A threaded server, straight to PostgreSQL."""
    options = {"max_cron_threads": 1}
    with running(whole, whole.direct, addon=False, options=options) as site:
        wait_until(lambda: site.starts(2), "jobs start at once", 30)
        whole.postgres.stop()
        time.sleep(2)
        whole.postgres.start()
        site.says("Exception in thread odoo.service.cron.cron0")
        site.sender.close()
        with contextlib.closing(Sender(site.odoo)) as site.sender:
            # it looks for jobs once a minute: this one is past that
            assert not site.starts(75)
        assert site.odoo.answers()


@pytest.mark.skipif(series.NUMBER < 18, reason="15.0 to 17.0 only stay deaf there")
def test_cron_workers_end_again_and_again_on_a_standby(whole):
    standby = Postgres(whole.folder / "standby", primary=whole.postgres).start()
    path = whole.direct._replace(port=standby.port)
    # with db_name Odoo would not even start there
    options = {"options": {"max_cron_threads": 1}, "named": False}
    try:
        with whole.odoo(path, workers=1, addon=False, start=False, **options) as odoo:
            odoo.launch()
            line = "Exception occurred, exiting"
            odoo.process.wait_for(lambda: odoo.log().count(line) >= 3, "the third one ends", 90)
            assert "cannot set transaction read-write mode during recovery" in odoo.log()
    finally:
        standby.stop()
