"""Who is told when a listener hears again."""

import json
from concurrent.futures import Future

import pytest

from bus_alt_connection.config.timing import (
    CATCH_UP_ASK,
    CATCH_UP_JITTER,
    CATCH_UP_MAX_PERIOD,
    CATCH_UP_PERIOD,
    MISSED_TIMEOUT,
)
from bus_alt_connection.integration import bus_protocol
from bus_alt_connection.integration.bus_protocol import is_valid_payload
from bus_alt_connection.listener.catch_up import CatchUp

from ...stack.inboxes import inbox_with


@pytest.fixture
def inboxes():
    made = []

    def inbox(everything, **options):
        options["catch_up_payloads"] = lambda told: everything()
        made.append(inbox_with("imbus", True, **options))
        return made[-1]

    yield inbox
    for one in made:
        one.close()


def delivered(catch_up, now, inbox) -> list:
    """Return the payloads that the inbox is told now."""
    catch_up.deliver_due(now)
    inbox.poll()
    return [notify.payload for notify in inbox.notifies]


class Searches:
    """Searches that end when the test wants it."""

    def __init__(self):
        self.started, self.woken = [], 0

    def start(self, name, find):
        future = Future()
        self.started.append((future, find))
        return future

    def end(self):
        """Let the last one end with what it finds."""
        future, find = self.started[-1]
        try:
            future.set_result(find())
        except Exception as error:
            future.set_exception(error)

    def wake(self):
        self.woken += 1


@pytest.fixture
def searches():
    return Searches()


@pytest.fixture
def catch_up(searches):
    return CatchUp(lambda first, last: last, searches.wake, searches.start)


def test_what_is_left_is_told_some_at_a_time(inboxes):
    catch_up = CatchUp(lambda first, last: last)
    inbox = inboxes(lambda: [["a"], ["b"]])
    assert catch_up.next_due() == float("inf")
    catch_up.schedule(100.0, [inbox])
    assert inbox.needs_catch_up is False
    assert catch_up.next_due() == 100.0 + CATCH_UP_JITTER
    assert delivered(catch_up, 100.0, inbox) == []
    assert delivered(catch_up, 100.5, inbox) == ["a"]
    assert delivered(catch_up, 100.5, inbox) == []
    assert delivered(catch_up, 100.5 + CATCH_UP_PERIOD, inbox) == ["b"]
    assert catch_up.next_due() == float("inf")


def test_those_who_missed_something_are_told_first_and_at_once(inboxes, catch_up, searches):
    ages = []

    def find(age):
        ages.append(age)
        return [["missed 1"], ["missed 2"]]

    inbox = inboxes(lambda: [["everybody"]], find_missed=find)
    inbox.missed_since = 90.0
    catch_up.schedule(100.0, [inbox])
    assert delivered(catch_up, 100.4, inbox) == [], "the round waits for the search"
    assert not searches.woken
    searches.end()
    assert searches.woken and ages == [10.0]
    found = [delivered(catch_up, 100.4 + i * CATCH_UP_PERIOD, inbox) for i in range(4)]
    assert found == [["missed 1"], ["missed 2"], ["everybody"], []]


@pytest.mark.parametrize("find", [lambda age: 1 / 0, lambda age: []], ids=["fails", "finds none"])
def test_without_an_answer_everybody_is_told(inboxes, catch_up, searches, find):
    inbox = inboxes(lambda: [["everybody"]], find_missed=find)
    catch_up.schedule(100.0, [inbox])
    searches.end()
    assert delivered(catch_up, 100.0 + CATCH_UP_JITTER, inbox) == ["everybody"]
    assert inbox.needs_catch_up is False


def test_a_search_that_takes_long_holds_nothing_up(inboxes, catch_up, searches):
    inbox = inboxes(lambda: [["a"], ["b"]], find_missed=lambda age: [["late"]])
    other = inboxes(lambda: [["cron"]])
    catch_up.schedule(100.0, [inbox, other])
    assert delivered(catch_up, 100.5, other) == ["cron"]
    assert catch_up.next_due() == 100.0 + MISSED_TIMEOUT
    assert delivered(catch_up, 100.0 + MISSED_TIMEOUT, inbox) == ["a"]
    searches.end()
    assert delivered(catch_up, 103.0, inbox) == ["late"], "it is told all the same"
    assert delivered(catch_up, 104.0, inbox) == ["b"]
    catch_up.schedule(110.0, [inbox])
    assert len(searches.started) == 2


def test_a_round_leaves_out_only_what_its_own_search_has_found(inboxes, catch_up, searches):
    """One that ends late tells of the outage before."""
    inbox = inboxes(list, find_missed=lambda age: [["missed"]])
    asked = []
    inbox.catch_up_payloads = lambda told: asked.append(told) or [["all"]]
    for outage in (100.0, 200.0):
        catch_up.schedule(outage, [inbox])
        catch_up.deliver_due(outage + MISSED_TIMEOUT)
        searches.end()
        catch_up.deliver_due(outage + 10.0)
    catch_up.schedule(300.0, [inbox])
    searches.end()
    catch_up.deliver_due(300.1)
    assert asked == [[], [], [["missed"]]]


@pytest.mark.parametrize("found", [True, False], ids=["in its round", "while it waits"])
def test_one_that_looks_again_leaves_the_other_s_round_alone(inboxes, catch_up, searches, found):
    bus = inboxes(lambda told=(): [["a"], ["b"]], find_missed=lambda age: [])
    cron = inboxes(lambda told=(): [["all databases"]])
    catch_up.schedule(100.0, [bus])
    if found:
        searches.end()
        assert delivered(catch_up, 100.5, bus) == ["a"]
    catch_up.schedule(100.6, [cron])
    if not found:
        searches.end()
    told: list = []
    for i in range(10):
        told += [*delivered(catch_up, 101.0 + i, bus), *delivered(catch_up, 101.5 + i, cron)]
    assert sorted(told) == (["all databases", "b"] if found else ["a", "all databases", "b"])


def test_no_second_search_begins_while_one_runs(inboxes, catch_up, searches):
    inbox = inboxes(lambda: [["a"]], find_missed=lambda age: [])
    catch_up.schedule(100.0, [inbox])
    catch_up.schedule(110.0, [inbox])
    assert len(searches.started) == 1


def test_a_round_is_finished_while_others_missed_something(inboxes, catch_up, searches):
    """It is deaf, and looks every 10 s; a round through everybody takes longer."""
    inbox = inboxes(lambda: [["a"], ["b"]], find_missed=lambda age: [["missed"]])
    catch_up.schedule(100.0, [inbox])
    searches.end()
    first = [delivered(catch_up, 101.0 + i, inbox) for i in range(2)]
    assert first == [["missed"], ["a"]] and catch_up.busy
    catch_up.schedule(110.0, [inbox], only_missed=True)
    searches.end()
    rest = [delivered(catch_up, 111.0 + i, inbox) for i in range(3)]
    assert rest == [["missed"], ["b"], []]


def test_the_next_batch_follows_once_the_pool_has_a_connection(inboxes, catch_up, searches):
    inbox = inboxes(lambda: [["a"], ["b"], ["c"]], use_pool=lambda: None)
    catch_up.schedule(100.0, [inbox])
    assert delivered(catch_up, 100.5, inbox) == ["a"]
    assert catch_up.next_due() == 100.5 + CATCH_UP_ASK
    assert delivered(catch_up, 100.6, inbox) == [] and len(searches.started) == 1
    assert delivered(catch_up, 100.7, inbox) == []
    searches.end()
    assert searches.woken
    assert delivered(catch_up, 100.8, inbox) == ["b"]
    assert delivered(catch_up, 101.0, inbox) == [] and len(searches.started) == 2
    assert delivered(catch_up, 101.0 + CATCH_UP_MAX_PERIOD, inbox) == ["c"], "it took too long"


def test_a_pool_without_a_connection_to_spare_is_left_alone(inboxes, catch_up, searches):
    inbox = inboxes(lambda: [["a"], ["b"]], use_pool=lambda: 1 / 0)
    catch_up.schedule(100.0, [inbox])
    assert delivered(catch_up, 100.5, inbox) == ["a"]
    assert delivered(catch_up, 101.0, inbox) == []
    searches.end()
    assert delivered(catch_up, 101.1, inbox) == []
    assert catch_up.next_due() == 101.1 + CATCH_UP_MAX_PERIOD
    assert delivered(catch_up, 103.0, inbox) == ["b"]


def test_those_who_missed_something_wait_for_the_batch_before(inboxes, catch_up, searches):
    inbox = inboxes(lambda: [["a"], ["b"]], use_pool=lambda: None)
    catch_up.schedule(100.0, [inbox])
    assert delivered(catch_up, 100.5, inbox) == ["a"]
    inbox.find_missed = lambda age: [["missed"]]
    catch_up.schedule(100.5, [inbox], only_missed=True)
    searches.end()
    assert delivered(catch_up, 100.5, inbox) == []
    assert delivered(catch_up, 100.6, inbox) == []
    searches.end()
    assert delivered(catch_up, 100.7, inbox) == ["missed"]


def test_a_new_plan_takes_the_place_of_the_old_one(inboxes):
    catch_up = CatchUp(lambda first, last: first)
    plans = [[["a"], ["b"]], [["c"]]]
    inbox = inboxes(lambda told=(): plans.pop(0))
    catch_up.schedule(100.0, [inbox])
    catch_up.schedule(101.0, [inbox])
    assert delivered(catch_up, 101.0, inbox) == ["c"]
    assert delivered(catch_up, 102.0, inbox) == []


def test_an_error_of_odoos_ends_nothing(inboxes, caplog):
    catch_up = CatchUp(lambda first, last: first)
    good = inboxes(lambda: [["a"]])
    bad = inboxes(lambda: 1 / 0)
    catch_up.schedule(100.0, [bad, good])
    assert delivered(catch_up, 101.0, good) == ["a"]
    assert bad.needs_catch_up, "it is tried again"
    catch_up.schedule(110.0, [bad])
    assert caplog.text.count("what was missed is not looked for") == 1


def test_each_subscriber_is_reached_and_shared_channels_are_not_needed():
    own = {("db", i): {f"websocket {i}"} for i in range(100)}
    everybody = set().union(*own.values())
    channels = bus_protocol.covering_channels({("db", "broadcast"): everybody, **own})
    assert sorted(channels) == sorted(own)


def test_a_channel_that_alone_reaches_somebody_counts():
    subscriptions = {"shared": {1, 2, 3}, "first": {1}, "nobody": set()}
    assert set(bus_protocol.covering_channels(subscriptions)) == {"first", "shared"}


def test_those_who_were_told_just_now_need_no_other_channel():
    subscriptions = {"told": {1, 2}, "a": {1}, "b": {2}, "c": {3}}
    assert bus_protocol.covering_channels(subscriptions, ["told", "gone"]) == ["c"]


def test_something_else_than_a_set_stands_for_one_subscriber():
    assert len(bus_protocol.covering_channels({"a": object(), "b": object()})) == 2


def test_ten_thousand_channels_go_in_batches():
    subscriptions = {("db", f"channel {i}"): {i} for i in range(10_000)}
    batches = bus_protocol.in_batches(bus_protocol.covering_channels(subscriptions))
    assert max(len(json.loads(payload)) for (payload,) in batches) == bus_protocol.BATCH
    sent = {tuple(channel) for (payload,) in batches for channel in json.loads(payload)}
    assert sent == set(subscriptions)


@pytest.mark.parametrize(
    "channel",
    [("db", object()), ("db", b"bytes"), object(), ("db", float("nan")), ("db", "\ud800")],
    ids=["object", "bytes", "no tuple", "NaN", "a lone surrogate"],
)
def test_a_subscription_that_json_cannot_write(channel, caplog):
    """Any visitor may subscribe to a lone surrogate. Who has another channel is told by that."""
    bus_protocol._logged_errors.clear()
    for _time in range(2):
        channels = bus_protocol.covering_channels(
            {channel: {1}, ("db", "a"): {1, 2}, ("db", "b"): {3}}
        )
        assert channels == [("db", "a"), ("db", "b")]
    assert all(is_valid_payload(payload) for (payload,) in bus_protocol.in_batches(channels))
    assert caplog.text.count("JSON cannot write") == 1


def test_it_is_busy_until_the_last_is_told(inboxes):
    catch_up = CatchUp(lambda first, last: first)
    assert not catch_up.busy
    catch_up.schedule(100.0, [inboxes(lambda: [["a"]])])
    assert catch_up.busy
    catch_up.deliver_due(100.0)
    assert not catch_up.busy


def test_who_waits_longest_is_not_always_the_same():
    """A session that breaks every few seconds may never finish a round."""
    subscriptions = {i: {i} for i in range(50)}
    assert len({tuple(bus_protocol.covering_channels(subscriptions)) for _ in range(5)}) > 1
