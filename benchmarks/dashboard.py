"""``./run bench dashboard``: what the dashboard shows while a listener is killed.

A real Prometheus scrapes a threaded Odoo each second. What the panels of
``monitoring/grafana.json`` ask for is kept in ``dashboard.json``, which ``plots.py`` draws.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import time

from tests.odoo.conftest import running
from tests.stack.deployment import running_deployment
from tests.stack.process import wait_until
from tests.stack.prometheus import Prometheus, legend, panels
from tests.stack.tcp_proxy import TcpProxy

KEPT = pathlib.Path(__file__).with_suffix(".json")
INTERVAL = 1  # seconds between two scrapes

# seconds from the begin of the picture
KILLED, AWAY, BACK, END = 40, 80, 100, 150


def send_until(server, begin: float, seconds: float):
    """Send two notifications a second until so many seconds after ``begin``."""
    number = 0
    while time.time() < begin + seconds:
        number += 1
        server.sender.send("a channel", f"message {number}")
        time.sleep(0.5)


def main():
    with running_deployment() as deployment, contextlib.ExitStack() as stack:
        proxy = TcpProxy((deployment.direct.host, deployment.direct.port))
        options = {**deployment.direct_settings, "imdispatcher_db_port": proxy.port}
        options.update(imdispatcher_metrics=True, max_cron_threads=1)
        server = stack.enter_context(running(deployment, options=options))
        prometheus = stack.enter_context(
            Prometheus(deployment.folder / "prometheus", [server.odoo.port], INTERVAL)
        )
        wait_until(lambda: server.odoo.ready().ok, "ready")
        send_until(server, time.time(), 4 * INTERVAL + 3)  # else the first rates are not known
        begin = time.time()
        send_until(server, begin, KILLED)
        deployment.postgres.kill_listeners()
        print(f"    killed after {time.time() - begin:.1f} s", flush=True)
        send_until(server, begin, AWAY)
        proxy.close()
        print(f"    away after {time.time() - begin:.1f} s", flush=True)
        send_until(server, begin, BACK)
        proxy.open()
        print(f"    back after {time.time() - begin:.1f} s", flush=True)
        send_until(server, begin, END)
        shown = {}
        for title, queries in panels(INTERVAL).items():
            shown[title] = {}
            for query, pattern in queries:
                for labels, points in prometheus.between(query, begin, begin + END, INTERVAL):
                    name = legend(pattern, {**labels, "instance": "odoo"})
                    shown[title][name] = [[round(at - begin, 1), value] for at, value in points]
    KEPT.write_text(json.dumps({"end": END, "panels": shown}) + "\n")
    print(f"written: {KEPT.name}")
