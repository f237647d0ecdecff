"""What GET /bus_alt_connection/metrics says, without a server."""

import os
import time
import types
from collections import Counter

from bus_alt_connection.config.timing import Timing
from bus_alt_connection.listener.listener import Failure
from bus_alt_connection.listener.status import ListenerStatus
from bus_alt_connection.outbox.counts import Counts
from bus_alt_connection.pages import metrics


def report(listener=None, expected=("imbus",), unconfirmed=0, failures=0) -> dict:
    """Return the samples by name and labels."""
    counts = {os.getpid(): Counts(unconfirmed, failures, 0, 0)}
    outbox = types.SimpleNamespace(counts_of_all=lambda: counts)
    runtime = types.SimpleNamespace(
        listener=listener, bypass=types.SimpleNamespace(listens=set()), outbox=outbox
    )
    response = metrics.respond(runtime, expected)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = response.get_data(as_text=True)
    assert text.endswith("\n")
    lines = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, _blank, value in lines}


def listener(**attributes):
    status = ListenerStatus(Timing())
    status.mark_starting(("cron_trigger", "imbus"))
    status.mark_listening(time.monotonic() - 2, "10.0.0.5:5432", 0.004)
    return types.SimpleNamespace(
        status=status,
        is_alive=lambda: True,
        channels=["cron_trigger", "imbus"],
        leads=True,
        followers=3,
        notification_counts=Counter(imbus=7),
        failure_counts={Failure.LOST: 1, Failure.DEAF: 0},
        **attributes,
    )


def test_each_channel_of_a_listener():
    samples = report(listener())
    for channel, heard in (("imbus", 7), ("cron_trigger", 0)):
        assert samples[f'odoo_listener_up{{channel="{channel}"}}'] == 1
        assert 2 <= samples[f'odoo_listener_proven_age_seconds{{channel="{channel}"}}'] < 3
        assert samples[f'odoo_listener_probe_seconds{{channel="{channel}"}}'] == 0.004
        assert samples[f'odoo_listener_notifications_total{{channel="{channel}"}}'] == heard
        # one that never happened is there all the same: its first time has to be seen
        for reason, number in (("lost", 1), ("deaf", 0)):
            name = f'odoo_listener_reconnects_total{{channel="{channel}",reason="{reason}"}}'
            assert samples[name] == number
    pid = os.getpid()
    assert samples[f'odoo_listener_leads{{pid="{pid}"}}'] == 1
    assert samples[f'odoo_listener_followers{{pid="{pid}"}}'] == 3


def test_a_deaf_one():
    one = listener()
    one.status.mark_deaf(time.monotonic(), "10.0.0.5:5432: password authentication failed")
    samples = report(one)
    assert samples['odoo_listener_up{channel="imbus"}'] == 0
    assert not any("password" in name for name in samples)


def test_a_listener_that_is_not_there_yet_is_not_up():
    samples = report()
    names = {name.split("{")[0] for name in samples}
    assert samples['odoo_listener_up{channel="imbus"}'] == 0
    assert names == {"odoo_listener_up", *(name for name in metrics.METRICS if "notify" in name)}


def test_a_process_without_a_listener_shows_what_it_sends():
    pid = os.getpid()
    assert report(expected=(), unconfirmed=3, failures=2) == {
        f'odoo_notify_pending{{pid="{pid}"}}': 3,
        f'odoo_notify_failures_total{{pid="{pid}"}}': 2,
        f'odoo_notify_refused_total{{pid="{pid}"}}': 0,
        f'odoo_notify_dropped_total{{pid="{pid}"}}': 0,
    }


def test_each_metric_has_a_line_of_help_and_its_type_before_its_samples():
    outbox = types.SimpleNamespace(counts_of_all=lambda: {1: Counts()})
    runtime = types.SimpleNamespace(
        listener=listener(), bypass=types.SimpleNamespace(listens=set()), outbox=outbox
    )
    lines = metrics.respond(runtime, ["imbus"]).get_data(as_text=True).splitlines()
    for name, meaning in metrics.METRICS.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        i = lines.index(f"# HELP {name} {meaning}")
        assert lines[i + 1] == f"# TYPE {name} {kind}"
        assert lines[i + 2].startswith(f"{name}{{")
