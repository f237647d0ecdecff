"""What GET /bus_alt_connection/ready says of listeners in each state."""

import json
import time
import types

from bus_alt_connection import ready
from bus_alt_connection.state import State
from bus_alt_connection.times import Times


def process(state=None, alive=True, astray=()):
    listener = types.SimpleNamespace(state=state, is_alive=lambda: alive) if state else None
    return types.SimpleNamespace(listener=listener, astray=set(astray))


def listening(ago=1.0) -> State:
    state = State(Times())
    state.starting("imbus")
    state.listening(time.monotonic() - ago, "10.0.0.5:5432, database postgres", 0.003)
    return state


def status(*args, **kwargs) -> str:
    return ready.report(process(*args, **kwargs), ["imbus"]).status[:3]


def test_only_a_listener_that_is_there_and_hears_is_ready():
    assert status(listening()) == "200"
    assert status() == "503"
    assert status(listening(), alive=False) == "503"
    assert status(listening(), astray=["cron_trigger"]) == "503"


def test_a_listener_that_proves_nothing_any_more():
    """It hangs: its state is the last that it knew."""
    assert status(listening(ready.STUCK - 1)) == "200"
    assert status(listening(ready.STUCK + 1)) == "503"


def test_strangers_learn_no_places_and_no_reasons():
    state = listening()
    state.deaf(time.monotonic(), "10.0.0.5:5432: password authentication failed")
    said = json.loads(ready.report(process(state), []).get_data())
    (imbus,) = said.pop("listeners")
    assert said == {"ready": False}
    assert 0.9 < imbus.pop("proven_seconds_ago") < 2
    assert imbus == {"channel": "imbus", "state": "deaf"}
