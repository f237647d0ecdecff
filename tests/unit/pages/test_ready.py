"""What GET /bus_alt_connection/ready says of listeners in each state."""

import json
import time
import types

from bus_alt_connection.config.timing import STALE_AFTER, Timing
from bus_alt_connection.listener.status import ListenerStatus
from bus_alt_connection.pages import ready


def runtime(status=None, alive=True, unpatched=()):
    listener = types.SimpleNamespace(
        status=status, is_alive=lambda: alive, leads=False, followers=2, channels=["imbus"]
    )
    return types.SimpleNamespace(
        listener=listener if status else None, bypass=types.SimpleNamespace(listens=set(unpatched))
    )


def listening(ago=1.0) -> ListenerStatus:
    status = ListenerStatus(Timing())
    status.mark_starting(("imbus",))
    status.mark_listening(time.monotonic() - ago, "10.0.0.5:5432, database postgres", 0.003)
    return status


def status_code(*args, **kwargs) -> str:
    return ready.respond(runtime(*args, **kwargs), ["imbus"]).status[:3]


def test_only_a_listener_that_is_there_and_hears_is_ready():
    assert status_code(listening()) == "200"
    assert status_code() == "503"
    assert status_code(listening(), alive=False) == "503"
    assert status_code(listening(), unpatched=["cron_trigger"]) == "503"
    assert status_code(listening(), unpatched=["imbus"]) == "200", "another addon listens, too"


def test_a_listener_that_proves_nothing_any_more():
    """It hangs: its state is the last that it knew."""
    assert status_code(listening(STALE_AFTER - 1)) == "200"
    assert status_code(listening(STALE_AFTER + 1)) == "503"


def test_unauthenticated_clients_learn_no_places_and_no_reasons():
    status = listening()
    status.mark_deaf(time.monotonic(), "10.0.0.5:5432: password authentication failed")
    said = json.loads(ready.respond(runtime(status), []).get_data())
    (imbus,) = said.pop("listeners")
    assert said == {"ready": False, "leads": False, "followers": 2}
    assert 0.9 < imbus.pop("proven_seconds_ago") < 2
    assert imbus == {"channel": "imbus", "state": "deaf"}


def unknown(ago: float) -> ListenerStatus:
    status = ListenerStatus(Timing())
    status.mark_starting(("imbus",))
    status.mark_unknown(time.monotonic() - ago, "10.0.0.5:5432", "no such database: postgres")
    return status


def test_what_never_was_proven_is_not_ready_for_ever():
    """The pooler does not know the database that NOTIFY is sent in."""
    assert status_code(unknown(STALE_AFTER - 1)) == "200"
    assert status_code(unknown(STALE_AFTER + 1)) == "503"


def test_what_was_proven_once_may_wait_for_the_pooler():
    """A load balancer that takes the server away takes the pages away, too."""
    status = listening(600)
    status.mark_unknown(time.monotonic() - 500, "10.0.0.5:5432", "refused")
    assert status_code(status) == "200"
