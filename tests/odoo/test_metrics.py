"""GET /bus_alt_connection/metrics of real servers, with a real Prometheus."""

import contextlib
import json
import re

import pytest
import requests

from bus_alt_connection.pages.metrics import METRICS

from ..stack import series
from ..stack.process import wait_until
from ..stack.prometheus import MONITORING, Prometheus, legend, panels, promtool
from ..stack.tcp_proxy import TcpProxy
from .conftest import BOTH, running

WITH_PROMETHEUS = pytest.mark.skipif(series.NUMBER != 19, reason="Prometheus comes with 19.0's")

UP = 'odoo_listener_up{channel="imbus"}'
LOST = 'odoo_listener_reconnects_total{channel="imbus",reason="lost"}'
NOT_THERE = 'odoo_listener_reconnects_total{channel="imbus",reason="not_there"}'
HEARD = 'odoo_listener_notifications_total{channel="imbus"}'

SCRAPE = 5.0  # seconds; 15 is usual between two


def page(port: int) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}/bus_alt_connection/metrics", timeout=10)


@contextlib.contextmanager
def watched(deployment, mode: str):
    """A server that shows metrics; its listener goes through a relay."""
    relay = TcpProxy((deployment.direct.host, deployment.direct.port))
    options = {**deployment.direct_settings, "imdispatcher_db_port": relay.port}
    options.update(imdispatcher_metrics=True, max_cron_threads=1)
    with running(deployment, workers={"threaded": 0, "prefork": 2}[mode], options=options) as site:
        site.relay = relay
        site.scrape = lambda: {
            name: float(value)
            for name, value in re.findall(r"^(\w+{.*}) (\S+)$", page(site.odoo.bus_port).text, re.M)
        }
        wait_until(lambda: site.scrape()[UP] == 1, "it hears")
        yield site


@pytest.fixture(scope="module", params=["threaded", "prefork"])
def seen(deployment, request):
    with watched(deployment, request.param) as site:
        yield site


def kill(site):
    """End the session of the listener that hears the bus."""
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)"
    )
    names = [f"odoo-{process.pid}-listener" for process in site.odoo.tree()]
    assert site.postgres.execute(query, [names]) == [(True,)]


def test_a_listener_that_is_killed_is_seen_in_the_next_scrape(seen):
    before = seen.scrape()
    assert seen.deliver(5) == 5
    # alike ones that wait are sent once
    wait_until(lambda: seen.scrape()[HEARD] > before[HEARD], "they are counted", SCRAPE)

    # it is back so soon that no scrape finds it away: the counter has it
    kill(seen)
    wait_until(lambda: seen.scrape()[LOST] == before[LOST] + 1, "the loss", SCRAPE)
    wait_until(lambda: seen.scrape()[UP] == 1, "it hears again")

    seen.relay.close()  # ends it and keeps it away
    wait_until(lambda: seen.scrape()[UP] == 0, "it is down", SCRAPE)
    wait_until(lambda: seen.scrape()[NOT_THERE] >= before[NOT_THERE] + 2, "again")
    assert seen.scrape()[LOST] == before[LOST] + 2
    age = 'odoo_listener_proven_age_seconds{channel="imbus"}'
    assert seen.scrape()[age] > 0.5

    seen.relay.open()
    wait_until(lambda: seen.scrape()[UP] == 1, "it hears again")
    assert "bus_alt_connection/metrics" not in seen.odoo.log(), "not in the access log"


@BOTH
def test_nobody_sees_metrics_unless_told_to(site):
    assert page(site.odoo.bus_port).status_code == 404


@WITH_PROMETHEUS
def test_prometheus_takes_the_page(seen):
    ports = {seen.odoo.port, seen.odoo.bus_port}
    for port in ports:
        text = page(port).text
        done = promtool("check", "metrics", text=text)
        assert (done.returncode, done.stdout) == (0, "")
        names = set(re.findall("^# TYPE (\\w+)", text, re.M))
        assert names == METRICS.keys() or port != seen.odoo.bus_port

    with Prometheus(seen.odoo.folder / "prometheus", sorted(ports)) as prometheus:
        wait_until(lambda: dict_of(prometheus, "up") == dict.fromkeys(ports, 1), "scraped")
        seen.deliver(5)
        queries = [query for panel in panels(1).values() for query, _legend in panel]
        for query in queries:
            wait_until(lambda query=query: prometheus.now(query), query)
        seen.relay.close()
        wait_until(lambda: 0 in dict_of(prometheus, "odoo_listener_up").values(), "seen", SCRAPE)
        wait_until(lambda: prometheus.alerts() == {"OdooListenerDeaf": "pending"}, "the alert")
        seen.relay.open()
        wait_until(lambda: not prometheus.alerts(), "no alert")


def dict_of(prometheus, query: str) -> dict:
    found = prometheus.now(query)
    return {int(labels["instance"].split(":")[1]): value for labels, value in found}


@WITH_PROMETHEUS
@pytest.mark.parametrize(
    "what",
    ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"],
)
def test_what_is_shipped_passes_promtool(what):
    done = promtool(*what.split())
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout


@WITH_PROMETHEUS
def test_the_dashboard_has_four_panels_of_queries_that_prometheus_takes(tmp_path):
    """Its structure as far as Grafana's "Dashboard JSON model" names it."""
    board = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    assert board.keys() >= {"uid", "title", "schemaVersion", "time", "templating", "panels"}
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\${?(\w+)", json.dumps(board)))
    assert used - {"__rate_interval", "__all"} == variables
    assert [panel["id"] for panel in board["panels"]] == [1, 2, 3, 4]
    places = set()
    for panel in board["panels"]:
        assert panel["type"] in ("timeseries", "state-timeline")
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        places.add((place["x"], place["y"], place["w"], place["h"]))
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == list("ABCD"[: len(refs)])
    assert len(places) == 4

    queries = [query for panel in panels(15).values() for query, _legend in panel]
    # all metrics are there to be seen, and no other
    assert {name for query in queries for name in re.findall(r"odoo_\w+", query)} == METRICS.keys()
    rules = [{"record": f"a{i}", "expr": query} for i, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "a", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout
    assert legend("{{instance}} {{channel}}", {"instance": "a", "channel": "b"}) == "a b"


def test_each_worker_tells_of_all(deployment):
    """HTTP workers share a port: whichever answers a scrape, none that cannot send is missed."""
    options = {**deployment.direct_settings, "imdispatcher_metrics": True}
    with running(deployment, workers=6, options=options) as site:

        def pids() -> set:
            return set(re.findall(r'odoo_notify_pending{pid="(\d+)"}', page(site.odoo.port).text))

        # each has answered once; from then on all tell the same
        wait_until(lambda: len(pids()) >= 4, "several workers")
        seen = [pids() for _time in range(10)]
        assert len(set.intersection(*seen)) >= 4
