# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/metrics``: this process for Prometheus, in its text format.

The format is version 0.0.4 of "Exposition formats" in Prometheus' documentation. The page is there
with ``imdispatcher_metrics = True`` only.
"""

import os
from typing import Collection, Dict, List

from werkzeug.wrappers import Response

from .ready import channels

PATH = "/bus_alt_connection/metrics"
KIND = "text/plain; version=0.0.4; charset=utf-8"

METRICS = {
    "odoo_listener_up": "1 while notifications on this channel arrive, as far as known, else 0.",
    "odoo_listener_proven_age_seconds": "Seconds since something proved that notifications arrive.",
    "odoo_listener_reconnects_total": "Sessions and attempts to connect that failed, by reason.",
    "odoo_listener_notifications_total": "Notifications that were heard.",
    "odoo_listener_probe_seconds": "Seconds that the last probe took through the pooler and back.",
    "odoo_notify_pending": "NOTIFY of commits of this process that are not confirmed yet.",
    "odoo_notify_failures_total": "Attempts to send NOTIFY that failed; each is made again.",
}


def report(process, expected: Collection[str]) -> Response:
    """Return all metrics of this process; parameters as ``ready.channels``."""
    samples: Dict[str, List[str]] = {name: [] for name in METRICS}

    def add(name: str, value, **labels):
        if value is not None:
            text = ",".join(f'{label}="{text}"' for label, text in labels.items())
            samples[name].append(f"{name}{{{text}}} {value}")

    listener = process.listener
    for one in channels(process, expected):
        add("odoo_listener_up", int(one.ready), channel=one.channel)
        add("odoo_listener_proven_age_seconds", one.proven_seconds_ago, channel=one.channel)
        if listener:
            heard = listener.heard[one.channel]
            add("odoo_listener_notifications_total", heard, channel=one.channel)
            add("odoo_listener_probe_seconds", listener.state.round_trip, channel=one.channel)
            for reason, number in listener.reconnects.items():
                add("odoo_listener_reconnects_total", number, channel=one.channel, reason=reason)
    # the workers behind one port answer in turn: each has figures of its own
    add("odoo_notify_pending", process.outbox.waiting, pid=os.getpid())
    add("odoo_notify_failures_total", process.outbox.failures, pid=os.getpid())

    lines = []
    for name, meaning in METRICS.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        if samples[name]:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples[name]]
    return Response("\n".join(lines) + "\n", content_type=KIND)
