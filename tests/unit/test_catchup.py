"""Who is told when a listener hears again."""

import json

import pytest

from bus_alt_connection import catchup
from bus_alt_connection.inbox import Inbox
from bus_alt_connection.payload import is_readable


@pytest.fixture
def inboxes():
    made = []

    def inbox(everything):
        made.append(Inbox("imbus", True, everything=everything))
        return made[-1]

    yield inbox
    for one in made:
        one.close()


def told(left, now, inbox) -> list:
    """Return the payloads that the inbox is told now."""
    left.tell(now)
    inbox.poll()
    return [notify.payload for notify in inbox.notifies]


def test_what_is_left_is_told_some_at_a_time(inboxes):
    left = catchup.CatchUp(lambda first, last: last)
    inbox = inboxes(lambda: [["a"], ["b"]])
    assert left.next() == float("inf")
    left.plan(100.0, [inbox])
    assert inbox.missed is False
    assert left.next() == 100.0 + catchup.JITTER
    assert told(left, 100.0, inbox) == []
    assert told(left, 100.5, inbox) == ["a"]
    assert told(left, 100.5, inbox) == []
    assert told(left, 100.5 + catchup.PERIOD, inbox) == ["b"]
    assert left.next() == float("inf")


def test_a_new_plan_takes_the_place_of_the_old_one(inboxes):
    left = catchup.CatchUp(lambda first, last: first)
    old, new = inboxes(lambda: [["a"], ["b"]]), inboxes(lambda: [["c"]])
    left.plan(100.0, [old])
    left.plan(101.0, [new])
    assert told(left, 101.0, new) == ["c"]
    assert told(left, 102.0, old) == []


def test_an_error_of_odoos_ends_nothing(inboxes, caplog):
    left = catchup.CatchUp(lambda first, last: first)
    good = inboxes(lambda: [["a"]])
    bad = inboxes(lambda: 1 / 0)
    left.plan(100.0, [bad, good])
    assert told(left, 101.0, good) == ["a"]
    assert bad.missed, "it is tried again"
    left.plan(110.0, [bad])
    assert caplog.text.count("what was missed is not looked for") == 1


def test_each_subscriber_is_reached_and_shared_channels_are_not_needed():
    own = {("db", i): {f"websocket {i}"} for i in range(100)}
    everybody = set().union(*own.values())
    channels = catchup.everybody({("db", "broadcast"): everybody, **own})
    assert sorted(channels) == sorted(own)


def test_a_channel_that_alone_reaches_somebody_counts():
    subscriptions = {"shared": {1, 2, 3}, "first": {1}, "nobody": set()}
    assert set(catchup.everybody(subscriptions)) == {"first", "shared"}


def test_something_else_than_a_set_stands_for_one_subscriber():
    assert len(catchup.everybody({"a": object(), "b": object()})) == 2


def test_ten_thousand_channels_go_in_batches():
    subscriptions = {("db", f"channel {i}"): {i} for i in range(10_000)}
    batches = catchup.in_batches(catchup.everybody(subscriptions))
    assert max(len(json.loads(payload)) for (payload,) in batches) == catchup.BATCH
    sent = {tuple(channel) for (payload,) in batches for channel in json.loads(payload)}
    assert sent == set(subscriptions)


@pytest.mark.parametrize(
    "channel",
    [("db", object()), ("db", b"bytes"), object(), ("db", float("nan")), ("db", "\ud800")],
    ids=["object", "bytes", "no tuple", "NaN", "half a character"],
)
def test_a_subscription_that_json_cannot_write(channel, caplog):
    """Any visitor may subscribe to half a character. Who has another channel is told by that."""
    catchup._warned.clear()
    for _time in range(2):
        channels = catchup.everybody({channel: {1}, ("db", "a"): {1, 2}, ("db", "b"): {3}})
        assert channels == [("db", "a"), ("db", "b")]
    assert all(is_readable(payload) for (payload,) in catchup.in_batches(channels))
    assert caplog.text.count("JSON cannot write") == 1


def test_a_thousand_websockets_are_told_at_less_than_200_queries_a_second(inboxes):
    left = catchup.CatchUp(lambda first, last: last)
    channels = [("db", f"channel {i}") for i in range(1000)]
    inbox = inboxes(lambda: catchup.in_batches(channels))
    left.plan(100.0, [inbox])
    now, numbers = 100.0, []
    while left.next() < float("inf"):
        assert left.next() >= now
        now = left.next()
        numbers.append(len(json.loads(told(left, now, inbox)[0])))
    assert sum(numbers) == 1000
    assert now - 100.0 >= 1000 / 200 - catchup.PERIOD
    assert now - 100.0 < 10


def test_it_is_busy_until_the_last_is_told(inboxes):
    left = catchup.CatchUp(lambda first, last: first)
    assert not left.busy
    left.plan(100.0, [inboxes(lambda: [["a"]])])
    assert left.busy
    left.tell(100.0)
    assert not left.busy


def test_who_waits_longest_is_not_always_the_same():
    """A session that breaks every few seconds may never finish a round."""
    subscriptions = {i: {i} for i in range(50)}
    assert len({tuple(catchup.everybody(subscriptions)) for _ in range(5)}) > 1
