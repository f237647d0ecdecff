"""Is it proven that notifications arrive? With a clock of the test's own."""

import pytest

from bus_alt_connection.config.timing import DEFAULT_TIMING, NEVER
from bus_alt_connection.listener.liveness import Action, Liveness


@pytest.fixture
def schedule():
    """A session that listens since second 100."""
    made = Liveness(DEFAULT_TIMING, lambda first, last: last)
    made.listening(100.0)
    return made


@pytest.fixture
def proven(schedule):
    schedule.sending(100.0, "mine")
    schedule.sent(100.01)
    schedule.received(100.01, ["mine"])
    return schedule


def test_nothing_is_to_be_done_before_there_was_a_session():
    schedule = Liveness(DEFAULT_TIMING)
    assert schedule.next_action(1e9) is None
    assert schedule.next_due() == NEVER


def test_a_probe_is_sent_at_once_and_proves_the_session(schedule):
    assert schedule.next_action(100.0) == Action.SEND
    schedule.sending(100.0, "mine")
    assert schedule.next_action(100.0) is None
    schedule.sent(100.1)
    assert not schedule.proven
    assert schedule.received(100.2, ["another's", "mine"]) == pytest.approx(0.2)
    assert schedule.proven
    assert schedule.next_due() == 100.2 + DEFAULT_TIMING.probe_after_silence[1]


def test_the_traffic_of_others_proves_nothing_at_first(schedule):
    schedule.sending(100.0, "mine")
    assert schedule.received(100.1, ["another's"]) is None
    assert not schedule.proven


def test_the_traffic_of_others_postpones_the_next_probe(proven):
    proven.received(105.0, [])
    assert proven.next_due() == 105.0 + DEFAULT_TIMING.probe_after_silence[1]
    assert proven.next_action(112.0) is None


def test_a_probe_of_its_own_is_sent_once_a_minute_whatever_others_send(proven):
    now = 100.01
    while proven.next_action(now) is None:
        now += 1.0
        proven.received(now, ["another's"])
        assert now < 200
    assert now - 100.01 <= DEFAULT_TIMING.probe_interval[1] + 1


def test_its_own_probe_goes_elsewhere_while_others_are_heard(proven):
    proven.sending(160.0, "second")
    proven.sent(160.1)
    now = 160.1
    while proven.next_action(now) is None:
        now += 0.5
        proven.received(now, ["another's"])
    assert proven.next_action(now) == Action.RECONNECT
    assert now == pytest.approx(160.1 + DEFAULT_TIMING.probe_timeout, abs=0.5)


def test_a_probe_may_be_heard_before_it_is_known_to_be_sent(schedule):
    schedule.sending(100.0, "mine")
    schedule.received(100.1, ["mine"])
    schedule.sent(100.2)
    assert schedule.next_action(105.0) is None
    assert schedule.next_due() == 100.1 + DEFAULT_TIMING.probe_after_silence[1]


def test_a_probe_that_was_not_sent_takes_the_proof_away(proven):
    proven.sending(110.0, "second")
    proven.not_sent(120.0, early=False)
    assert not proven.proven
    assert proven.next_due() == 120.0 + DEFAULT_TIMING.probe_retry[1]
    proven.received(121.0, ["another's"])
    assert not proven.proven
    assert proven.next_due() == 120.0 + DEFAULT_TIMING.probe_retry[1], "others do not postpone it"
    proven.sending(135.0, "third")
    proven.received(135.1, ["third"])
    assert proven.proven


def test_whoever_missed_something_hurries(schedule):
    schedule.sending(100.0, "mine")
    schedule.not_sent(101.0, early=True)
    assert schedule.next_due() == 101.0 + DEFAULT_TIMING.probe_retry_early[1]


def test_while_it_is_deaf_probes_tell_whether_odoo_can_look_by_itself(proven):
    proven.lost(200.0, probing=True)
    assert not proven.proven
    assert proven.next_due() == 200.0 + DEFAULT_TIMING.probe_retry_early[1]
    proven.lost(200.5, probing=True)
    assert proven.next_due() == 200.0 + DEFAULT_TIMING.probe_retry_early[1], (
        "each attempt does not put it off"
    )
    proven.sending(201.0, "deaf")
    proven.sent(201.1)
    assert proven.next_due() == 201.1 + DEFAULT_TIMING.probe_retry[1]
    assert proven.next_action(1e9) == Action.SEND, "nothing is given up: there is no session"


def test_probes_that_help_nobody_are_not_sent(proven):
    proven.lost(200.0, probing=False)
    assert proven.next_action(1e9) is None


def test_more_channels_have_to_be_proven_from_the_start(proven):
    proven.listening(105.0)
    assert not proven.proven
    assert proven.next_action(105.0) == Action.SEND


def test_a_new_session_is_proven_by_a_new_probe(proven):
    proven.sending(110.0, "old")
    proven.lost(111.0, probing=True)
    proven.listening(112.0)
    assert proven.received(112.1, ["old"]) is None
    assert not proven.proven
    assert proven.next_action(112.1) == Action.SEND


def test_a_loss_before_the_first_session_is_probed_too():
    schedule = Liveness(DEFAULT_TIMING, lambda first, last: last)
    schedule.lost(100.0, probing=True)
    assert schedule.next_due() == 100.0 + DEFAULT_TIMING.probe_retry_early[1]


def test_while_it_is_deaf_for_long_probes_are_no_more_frequent_than_retries(proven):
    sent, now = [], 200.0
    while now < 800.0:
        proven.lost(now, probing=True)  # an attempt to connect fails each second
        if proven.next_action(now) == Action.SEND:
            sent.append(now)
            proven.sending(now, f"probe {now}")
            if len(sent) % 2:
                proven.sent(now + 0.1)
            else:
                proven.not_sent(now + 0.1, early=False)
        now += 1.0
    assert all(
        later - earlier >= DEFAULT_TIMING.probe_retry[0] for earlier, later in zip(sent, sent[1:])
    )
    assert len(sent) >= 600 / (DEFAULT_TIMING.probe_retry[1] + 2)


def test_an_hour_of_constant_traffic_has_a_probe_of_its_own_each_minute(proven):
    sent, now = [100.01], 100.0
    while now < 3700.0:
        now += 0.5
        proven.received(now, ["another's"])
        todo = proven.next_action(now)
        assert todo != Action.RECONNECT
        if todo == Action.SEND:
            sent.append(now)
            proven.sending(now, f"probe {now}")
            proven.received(now + 0.01, ["another's"])
            proven.sent(now + 0.02)
            proven.received(now + 0.03, [f"probe {now}"])
    gaps = [later - earlier for earlier, later in zip(sent, sent[1:])]
    assert max(gaps) <= DEFAULT_TIMING.probe_interval[1] + 1
    assert min(gaps) >= DEFAULT_TIMING.probe_interval[0]


def test_a_silent_session_is_given_up_soon_after_it_went_deaf(proven):
    """It is proven at 100; with nothing heard it is known to be deaf within 20 s."""
    while proven.next_action(proven.next_due()) == Action.SEND:
        now = proven.next_due()
        proven.sending(now, "not heard")
        proven.sent(now + 0.1)
    assert (
        proven.next_due()
        <= 100.01 + DEFAULT_TIMING.probe_after_silence[1] + DEFAULT_TIMING.probe_timeout + 0.2
    )


def test_sending_may_take_as_long_as_it_does(schedule):
    schedule.sending(100.0, "mine")
    assert schedule.next_due() == NEVER
    assert schedule.next_action(1e6) is None
