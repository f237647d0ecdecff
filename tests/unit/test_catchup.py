"""Who is woken when a listener hears again."""

import json

from bus_alt_connection import catchup


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


def test_the_order_is_not_always_the_same():
    subscriptions = {i: {i} for i in range(50)}
    assert len({tuple(catchup.everybody(subscriptions)) for _ in range(5)}) > 1


def test_ten_thousand_channels_go_in_batches():
    subscriptions = {("db", f"channel {i}"): {i} for i in range(10_000)}
    batches = catchup.in_batches(catchup.everybody(subscriptions))
    assert max(len(json.loads(payload)) for (payload,) in batches) == catchup.BATCH
    sent = {tuple(channel) for (payload,) in batches for channel in json.loads(payload)}
    assert sent == set(subscriptions)
