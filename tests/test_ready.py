"""GET /bus_alt_connection/ready, for a machine that asks each second."""

import pytest
import requests

from .stack.process import wait_until

MODES = pytest.mark.parametrize("workers", [0, 2], ids=["threaded", "prefork"])


@MODES
def test_it_proves_the_path_before_anybody_subscribes(deployment, workers):
    with deployment.odoo(workers=workers, options=deployment.direct) as odoo:
        wait_until(lambda: odoo.ready().status_code == 200, "ready")
        (listener,) = odoo.ready().json()["listeners"]
        assert listener["channel"] == "imbus"
        assert listener["state"] == "listening"
        assert 0 <= listener["proven_seconds_ago"] < 30
        assert odoo.ready().headers["Content-Type"] == "application/json"


def test_an_http_worker_has_no_listeners(deployment):
    with deployment.odoo(workers=2, options=deployment.direct) as odoo:
        answer = requests.get(f"{odoo.url}/bus_alt_connection/ready", timeout=10)
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "listeners": []})


def test_strangers_learn_no_names(deployment):
    with deployment.odoo(options=deployment.direct) as odoo:
        wait_until(lambda: "imbus: listening" in odoo.log(), "listening")
        place = f"127.0.0.1:{deployment.straight.port}"
        assert place in odoo.ready("?verbose").text
        assert place not in odoo.ready().text
        for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Forwarded-Host"):
            assert place not in odoo.ready("?verbose", {header: "127.0.0.1"}).text
        assert deployment.password not in odoo.ready("?verbose").text


@MODES
def test_it_is_quiet_in_the_access_log(deployment, workers):
    with deployment.odoo(workers=workers, options=deployment.direct) as odoo:
        for _time in range(3):
            odoo.ready()
        odoo.answers()
        wait_until(lambda: "/web/login" in odoo.log(), "others are in the access log")
        assert "bus_alt_connection/ready" not in odoo.log()


def test_it_answers_while_postgresql_is_down(deployment):
    with deployment.odoo(options=deployment.direct) as odoo:
        wait_until(lambda: odoo.ready().json()["ready"], "ready")
        assert odoo.ready().json()["listeners"]
        deployment.postgres.stop()
        try:
            wait_until(lambda: odoo.ready().status_code == 503, "not ready")
            wait_until(lambda: "refused" in odoo.ready("?verbose").text, "the reason")
        finally:
            deployment.postgres.start()
        wait_until(lambda: odoo.ready().status_code == 200, "ready again")
