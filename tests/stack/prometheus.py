"""A real Prometheus, with the alerts and the dashboard that the project ships."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import subprocess

import requests

from .odoo import CHECKOUT
from .process import Process, free_port

MONITORING = CHECKOUT / "monitoring"

CONF = """\
global: {{scrape_interval: {interval}s, evaluation_interval: {interval}s}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: odoo
    metrics_path: /bus_alt_connection/metrics
    static_configs: [{{targets: {targets}}}]
"""


def promtool(*arguments, text: str = "") -> subprocess.CompletedProcess:
    """Run Prometheus' checker in the folder ``monitoring``.

    :param text: its standard input
    """
    return subprocess.run(
        [_program("promtool"), *arguments],
        input=text,
        cwd=MONITORING,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _program(name: str) -> pathlib.Path:
    return pathlib.Path(os.environ["BUS_ALT_BROWSER"]) / "usr/bin" / name


def panels(interval: float) -> dict[str, list[tuple]]:
    """Return the (query, legend) of each panel of the dashboard, by its title.

    :param interval: between two scrapes, seconds; replaces Grafana's variables
    """
    text = (MONITORING / "grafana.json").read_text(encoding="utf-8")
    # Grafana: $__rate_interval is at least four scrape intervals
    text = text.replace("$__rate_interval", f"{4 * interval:g}s").replace("$instance", ".*")
    return {
        panel["title"]: [(target["expr"], target["legendFormat"]) for target in panel["targets"]]
        for panel in json.loads(text)["panels"]
    }


def legend(pattern: str, labels: dict) -> str:
    """Return what Grafana writes beside a line."""
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), pattern)


class Prometheus:
    """One Prometheus on 127.0.0.1.

    :param ports: of Odoo, to scrape
    :param interval: between two scrapes, seconds
    """

    def __init__(self, folder: pathlib.Path, ports: list[int], interval: int = 1):
        self.port = free_port()
        self.process = Process(folder.with_suffix(".log"))
        self._folder = folder
        folder.mkdir()
        targets = json.dumps([f"127.0.0.1:{port}" for port in ports])
        alerts = MONITORING / "alerts.yml"
        (folder / "prometheus.yml").write_text(
            CONF.format(interval=interval, alerts=alerts, targets=targets)
        )

    def __enter__(self):
        self.process.start(
            [
                _program("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ]
        )
        self.process.wait_for(self._is_ready, "Prometheus answers")
        return self

    def __exit__(self, *exc_info):
        self.process.stop()

    def _is_ready(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{self.port}/-/ready", timeout=10).ok
        return False

    def _get(self, path: str, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        answer = requests.get(url, params=parameters, timeout=10)
        return answer.json()["data"]

    def now(self, query: str) -> list[tuple]:
        """Return the (labels, value) of each series in the result of the query."""
        result = self._get("query", query=query)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def between(self, query: str, begin: float, end: float, step: float) -> list[tuple]:
        """Return the (labels, points) of each series; each point is (Unix time, value)."""
        result = self._get("query_range", query=query, start=begin, end=end, step=step)["result"]
        return [
            (series["metric"], [(at, float(value)) for at, value in series["values"]])
            for series in result
        ]

    def alerts(self) -> dict[str, str]:
        """Return the state of each alert that is pending or firing, by its name."""
        alerts = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert["state"] for alert in alerts}
