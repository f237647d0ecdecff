# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/metrics``: this process for Prometheus, in its text format.

The format is version 0.0.4 of "Exposition formats" in Prometheus' documentation. The page is there
with ``imdispatcher_metrics = True`` only.
"""

from __future__ import annotations

import os
from typing import Collection

from werkzeug.wrappers import Response

from .channels import list_channels

PATH = "/bus_alt_connection/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METRICS = {
    "odoo_listener_up": "1 while notifications on this channel arrive, as far as known, else 0.",
    "odoo_listener_proven_age_seconds": "Seconds since something proved that notifications arrive.",
    "odoo_listener_reconnects_total": "Sessions and attempts to connect that failed, by reason.",
    "odoo_listener_notifications_total": "Notifications that were heard.",
    "odoo_listener_probe_seconds": "Seconds that the last probe took through the pooler and back.",
    "odoo_listener_leads": "1 while the direct connection is this process's own, else 0.",
    "odoo_listener_followers": "Inboxes of other processes that are filled from that connection.",
    "odoo_notify_pending": "NOTIFY of commits of this process that are not confirmed yet.",
    "odoo_notify_failures_total": "Attempts to send NOTIFY that failed; each is made again.",
}


def respond(runtime, expected: Collection[str]) -> Response:
    """Return all metrics of this process; parameters as ``list_channels``."""
    samples: dict[str, list[str]] = {name: [] for name in METRICS}

    def add(name: str, value, **labels):
        if value is not None:
            text = ",".join(f'{label}="{text}"' for label, text in labels.items())
            samples[name].append(f"{name}{{{text}}} {value}")

    listener = runtime.listener
    for channel in list_channels(runtime, expected):
        name, age = channel.channel, channel.proven_seconds_ago
        add("odoo_listener_up", int(channel.ready), channel=name)
        add("odoo_listener_proven_age_seconds", age, channel=name)
        if listener:
            count = listener.notification_counts[name]
            add("odoo_listener_notifications_total", count, channel=name)
            add("odoo_listener_probe_seconds", listener.status.round_trip, channel=name)
            for reason, number in listener.failure_counts.items():
                labels = {"channel": name, "reason": reason.value}
                add("odoo_listener_reconnects_total", number, **labels)
    # the workers behind one port answer in turn: each has figures of its own
    if listener:
        add("odoo_listener_leads", int(listener.leads), pid=os.getpid())
        add("odoo_listener_followers", listener.followers, pid=os.getpid())
    add("odoo_notify_pending", runtime.outbox.unconfirmed, pid=os.getpid())
    add("odoo_notify_failures_total", runtime.outbox.failures, pid=os.getpid())

    lines = []
    for name, help_text in METRICS.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        if samples[name]:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *samples[name]]
    return Response("\n".join(lines) + "\n", content_type=CONTENT_TYPE)
