"""GET /bus_alt_connection/ready, for a machine that asks each second."""

import pytest
import requests

from ..stack import series
from ..stack.client import BusClient
from ..stack.deployment import deployment as running_deployment
from ..stack.process import wait_until
from .conftest import BOTH

# another addon, loaded after ours
RIVALS = {
    "wraps db_connect": """
        import odoo.sql_db

        stock = odoo.sql_db.db_connect

        def db_connect(*args, **kwargs):
            return stock(*args, **kwargs)

        odoo.sql_db.db_connect = db_connect
    """,
    "replaces the loop": """
        import select
        import odoo.sql_db
        from odoo.addons.bus.models.bus import ImDispatch

        def loop(self):
            with odoo.sql_db.db_connect("postgres").cursor() as cr:
                cr.execute("listen imbus")
                cr.commit()
                select.select([cr._cnx], [], [], 60)

        ImDispatch.loop = loop
    """,
}


@BOTH
def test_it_proves_the_path_before_anybody_subscribes(site):
    wait_until(lambda: site.odoo.ready().status_code == 200, "ready")
    listeners = {one["channel"]: one for one in site.odoo.ready().json()["listeners"]}
    assert listeners["imbus"]["state"] == "listening"
    assert 0 <= listeners["imbus"]["proven_seconds_ago"] < 30
    assert site.odoo.ready().headers["Content-Type"] == "application/json"
    # strangers learn no names
    assert str(site.whole.straight.port) not in site.odoo.ready("?verbose").text


def test_an_http_worker_has_no_listeners(prefork):
    answer = requests.get(f"{prefork.odoo.url}/bus_alt_connection/ready", timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "listeners": []})


@BOTH
def test_it_is_quiet_in_the_access_log(site):
    for _time in range(3):
        site.odoo.ready()
    site.odoo.answers()
    site.says("/web/login")
    assert "bus_alt_connection/ready" not in site.odoo.log()


@pytest.mark.slow
def test_it_answers_while_postgresql_is_down():
    with running_deployment() as whole, whole.odoo(options=whole.direct) as odoo:
        wait_until(lambda: odoo.ready().json()["ready"], "ready")
        assert odoo.ready().json()["listeners"]
        whole.postgres.stop()
        try:
            wait_until(lambda: odoo.ready().status_code == 503, "not ready")
            wait_until(lambda: "imbus: deaf: " in odoo.log(), "the reason")
        finally:
            whole.postgres.start()
        wait_until(lambda: odoo.ready().status_code == 200, "ready again")


@pytest.mark.skipif(series.NUMBER < 17, reason="--load has no order: who is last is luck")
@pytest.mark.parametrize("what", RIVALS)
def test_a_listen_that_goes_astray_is_said(deployment, tmp_path, what):
    rival = tmp_path / "rival"
    rival.mkdir()
    lines = ["def post_load():", *RIVALS[what].splitlines()]
    (rival / "__init__.py").write_text(
        "\n".join(line[4:] if line[:1] == " " else line for line in lines)
    )
    (rival / "__manifest__.py").write_text(
        "{'name': 'rival', 'post_load': 'post_load', 'depends': ['bus'],"
        " 'author': 'a', 'license': 'AGPL-3'}"
    )
    with deployment.odoo(options=deployment.direct, start=False) as odoo:
        path = f"{odoo.options['addons_path']},{tmp_path}"
        modules = odoo.options["server_wide_modules"] + ",rival"
        text = odoo.conf.read_text()
        text = text.replace(odoo.options["addons_path"], path)
        odoo.conf.write_text(text.replace(odoo.options["server_wide_modules"], modules))
        odoo.start()
        with BusClient(odoo, "a"):
            wait_until(lambda: "LISTEN imbus went to an ordinary connection" in odoo.log(), "ERROR")
            (line,) = [one for one in odoo.log().splitlines() if "ordinary connection" in one]
            assert " ERROR " in line
            answer = odoo.ready()
            assert answer.status_code == 503
            (imbus,) = answer.json()["listeners"]
            assert (imbus["channel"], imbus["state"]) == ("imbus", "deaf")
