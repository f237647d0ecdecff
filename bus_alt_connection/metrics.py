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

UP = "odoo_listener_up"
AGE = "odoo_listener_proven_age_seconds"
RECONNECTS = "odoo_listener_reconnects_total"
NOTIFICATIONS = "odoo_listener_notifications_total"
PROBE = "odoo_listener_probe_seconds"
PENDING = "odoo_notify_pending"
FAILURES = "odoo_notify_failures_total"

METRICS = {
    UP: ("gauge", "1 while notifications on this channel arrive, as far as known, else 0."),
    AGE: ("gauge", "Seconds since something proved that notifications arrive."),
    RECONNECTS: ("counter", "Sessions and attempts to connect that failed, by reason."),
    NOTIFICATIONS: ("counter", "Notifications that were heard."),
    PROBE: ("gauge", "Seconds that the last probe took through the pooler and back."),
    PENDING: ("gauge", "NOTIFY of commits of this process that are not confirmed yet."),
    FAILURES: ("counter", "Attempts to send NOTIFY that failed, and were or will be made again."),
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
        add(UP, int(one.ready), channel=one.channel)
        add(AGE, one.proven_seconds_ago, channel=one.channel)
        if listener:
            add(NOTIFICATIONS, listener.heard[one.channel], channel=one.channel)
            add(PROBE, listener.state.round_trip, channel=one.channel)
            for reason, number in listener.reconnects.items():
                add(RECONNECTS, number, channel=one.channel, reason=reason)
    # the workers behind one port answer in turn: each has figures of its own
    add(PENDING, process.outbox.waiting, pid=os.getpid())
    add(FAILURES, process.outbox.failures, pid=os.getpid())

    lines = []
    for name, (kind, meaning) in METRICS.items():
        if samples[name]:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples[name]]
    return Response("\n".join(lines) + "\n", content_type=KIND)
