"""GET /bus_alt_connection/ready, for a machine that asks each second."""

import http.client
import re
import secrets
import socket

import pytest
import requests

from ..stack import series
from ..stack.client import BusClient
from ..stack.deployment import running_deployment
from ..stack.guide import block
from ..stack.process import wait_until
from .conftest import BOTH

# another addon, loaded after ours
# it bypasses what was there before; an addon that wraps it is in test_neighbours.py
RIVAL = """
def post_load():
    import odoo.sql_db

    def db_connect(to, *args, **kwargs):
        database, info = odoo.sql_db.connection_info_for(to)
        pool = odoo.sql_db.ConnectionPool(4)
        return odoo.sql_db.Connection(pool, database, info)

    odoo.sql_db.db_connect = db_connect
"""


@BOTH
def test_it_proves_the_path_before_anybody_subscribes(site):
    wait_until(lambda: site.odoo.ready().status_code == 200, "ready")
    listeners = {one["channel"]: one for one in site.odoo.ready().json()["listeners"]}
    assert listeners["imbus"]["state"] == "listening"
    assert 0 <= listeners["imbus"]["proven_seconds_ago"] < 30
    assert site.odoo.ready().headers["Content-Type"] == "application/json"
    # strangers learn no names
    for query in ("?verbose", "?verbose=1&debug=1"):
        known = {"ready", "listeners", "leads", "followers"}
        assert site.odoo.ready(query).json().keys() == known


def test_an_http_worker_has_no_listeners(prefork):
    answer = requests.get(f"{prefork.odoo.url}/bus_alt_connection/ready", timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "listeners": []})


def ask(connection, method: str, path: str = "/bus_alt_connection/ready") -> tuple:
    """Ask in a connection that stays open; return the status, the headers and the body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Length: 0", "", ""]
    connection.sendall("\r\n".join(lines).encode())
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_a_connection_to_the_gevent_port_serves_one_request_after_the_other(prefork):
    wait_until(lambda: prefork.odoo.ready().ok, "ready")
    place = "127.0.0.1", prefork.odoo.gevent_port
    with socket.create_connection(place, 10) as connection:
        for _time in range(2):
            status, headers, body = ask(connection, "GET")
            assert (status, headers["Content-Length"]) == (200, str(len(body)))
            # the answer that comes next is the next one's
            assert ask(connection, "HEAD")[0] == 200
            status, headers, body = ask(connection, "POST")
            assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"")


@BOTH
def test_other_methods(site):
    url = f"http://127.0.0.1:{site.odoo.bus_port}/bus_alt_connection/ready"
    assert requests.post(url, data="x", timeout=10).status_code == 405
    head = requests.head(url, timeout=10)
    assert head.headers["Content-Type"] == "application/json"


@pytest.mark.skipif(not series.CRON_LISTENS, reason="no cron listener before 15.0")
def test_it_speaks_for_cron(prefork):
    def states():
        return {one["channel"]: one["state"] for one in prefork.odoo.ready().json()["listeners"]}

    expected = dict.fromkeys(("cron_trigger", "imbus"), "listening")
    wait_until(lambda: states() == expected, "both are shown")


@pytest.mark.skipif(not series.CRON_LISTENS, reason="one process listens before 15.0")
def test_postgresql_shows_which_process_listens(prefork):
    wait_until(lambda: prefork.odoo.ready().ok, "ready")
    rows = prefork.postgres.execute(block("sql", "backend_start"))
    names = {f"odoo-{process.pid}-listener" for process in prefork.odoo.tree()}
    assert len([row for row in rows if row[0] in names]) == 1


@BOTH
def test_only_the_exact_request_is_left_out_of_the_access_log(site):
    path = "/bus_alt_connection/ready"
    with socket.create_connection(("127.0.0.1", site.odoo.bus_port), 10) as connection:
        ask(connection, "HEAD")
    for hidden in (f"/web/health?a={path}", f"{path}/of-another", f"{path}?of-another"):
        mark = secrets.token_hex(4)
        requests.get(f"http://127.0.0.1:{site.odoo.bus_port}{hidden}{mark}", timeout=10)
        site.says(f"{hidden}{mark}")
    assert not re.search(f"(GET|HEAD) {path} HTTP/", site.odoo.log())


@pytest.mark.slow
def test_it_answers_while_postgresql_is_down():
    with running_deployment() as whole, whole.odoo(options=whole.direct_settings) as odoo:
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
def test_a_listen_that_goes_astray_is_said(deployment, tmp_path):
    rival = tmp_path / "rival"
    rival.mkdir()
    (rival / "__init__.py").write_text(RIVAL)
    (rival / "__manifest__.py").write_text(
        "{'name': 'rival', 'post_load': 'post_load', 'depends': ['bus'],"
        " 'author': 'a', 'license': 'AGPL-3'}"
    )
    with deployment.odoo(options=deployment.direct_settings, start=False) as odoo:
        path = f"{odoo.options['addons_path']},{tmp_path}"
        modules = odoo.options["server_wide_modules"] + ",rival"
        text = odoo.conf.read_text()
        text = text.replace(odoo.options["addons_path"], path)
        odoo.conf.write_text(text.replace(odoo.options["server_wide_modules"], modules))
        odoo.start()
        with BusClient(odoo, "a"):
            wait_until(lambda: "LISTEN imbus went to an ordinary connection" in odoo.log(), "ERROR")
            lines = [line for line in odoo.log().splitlines() if "ordinary connection" in line]
            assert all(" ERROR " in line for line in lines)
            answer = odoo.ready()
            assert answer.status_code == 503
            states = {row["channel"]: row["state"] for row in answer.json()["listeners"]}
            assert states["imbus"] == "deaf"
