# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/metrics``: this process for Prometheus, in its text format.

Of the NOTIFY that commits send, it tells for all processes that one server has forked.

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
    "odoo_notify_refused_total": "NOTIFY that were refused as wrong, and dropped.",
    "odoo_notify_dropped_total": "NOTIFY that were dropped because too many waited.",
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
    if listener:
        add("odoo_listener_leads", int(listener.leads), pid=os.getpid())
        add("odoo_listener_followers", listener.followers, pid=os.getpid())
    # the workers behind one port answer in turn: each tells of all
    for pid, counts in runtime.outbox.counts_of_all().items():
        add("odoo_notify_pending", counts.pending, pid=pid)
        add("odoo_notify_failures_total", counts.failures, pid=pid)
        add("odoo_notify_refused_total", counts.refused, pid=pid)
        add("odoo_notify_dropped_total", counts.dropped, pid=pid)

    lines = []
    for name, help_text in METRICS.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        if samples[name]:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *samples[name]]
    return Response("\n".join(lines) + "\n", content_type=CONTENT_TYPE)
