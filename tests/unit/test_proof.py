"""Is it proven that notifications arrive? With a clock of the test's own."""

import pytest

from bus_alt_connection.proof import GIVE_UP, SEND, Proof
from bus_alt_connection.times import NEVER, TIMES


@pytest.fixture
def proof():
    """A session that listens since second 100."""
    made = Proof(TIMES, lambda first, last: last)
    made.listening(100.0)
    return made


@pytest.fixture
def proven(proof):
    proof.sending(100.0, "mine")
    proof.sent(100.01)
    proof.heard(100.01, ["mine"])
    return proof


def test_nothing_is_to_be_done_before_there_was_a_session():
    proof = Proof(TIMES)
    assert proof.todo(1e9) is None
    assert proof.next() == NEVER


def test_a_probe_is_sent_at_once_and_proves_the_session(proof):
    assert proof.todo(100.0) == SEND
    proof.sending(100.0, "mine")
    assert proof.todo(100.0) is None
    proof.sent(100.1)
    assert not proof.proven
    assert proof.heard(100.2, ["somebody's", "mine"]) == pytest.approx(0.2)
    assert proof.proven
    assert proof.next() == 100.2 + TIMES.silence[1]


def test_the_traffic_of_others_proves_nothing_at_first(proof):
    proof.sending(100.0, "mine")
    assert proof.heard(100.1, ["somebody's"]) is None
    assert not proof.proven


def test_the_traffic_of_others_postpones_the_next_probe(proven):
    proven.heard(105.0, [])
    assert proven.next() == 105.0 + TIMES.silence[1]
    assert proven.todo(112.0) is None


def test_a_probe_of_its_own_is_sent_once_a_minute_whatever_others_send(proven):
    now = 100.01
    while proven.todo(now) is None:
        now += 1.0
        proven.heard(now, ["somebody's"])
        assert now < 200
    assert now - 100.01 <= TIMES.own_probe[1] + 1


def test_its_own_probe_goes_elsewhere_while_others_are_heard(proven):
    proven.sending(160.0, "second")
    proven.sent(160.1)
    now = 160.1
    while proven.todo(now) is None:
        now += 0.5
        proven.heard(now, ["somebody's"])
    assert proven.todo(now) == GIVE_UP
    assert now == pytest.approx(160.1 + TIMES.heard_within, abs=0.5)


def test_a_probe_may_be_heard_before_it_is_known_to_be_sent(proof):
    proof.sending(100.0, "mine")
    proof.heard(100.1, ["mine"])
    proof.sent(100.2)
    assert proof.todo(105.0) is None
    assert proof.next() == 100.1 + TIMES.silence[1]


def test_a_probe_that_was_not_sent_takes_the_proof_away(proven):
    proven.sending(110.0, "second")
    proven.not_sent(120.0, hurry=False)
    assert not proven.proven
    assert proven.next() == 120.0 + TIMES.retry[1]
    proven.heard(121.0, ["somebody's"])
    assert not proven.proven
    assert proven.next() == 120.0 + TIMES.retry[1], "others do not postpone it"
    proven.sending(135.0, "third")
    proven.heard(135.1, ["third"])
    assert proven.proven


def test_whoever_missed_something_hurries(proof):
    proof.sending(100.0, "mine")
    proof.not_sent(101.0, hurry=True)
    assert proof.next() == 101.0 + TIMES.retry_soon[1]


def test_while_it_is_deaf_probes_tell_whether_odoo_can_look_by_itself(proven):
    proven.lost(200.0, probing=True)
    assert not proven.proven
    assert proven.next() == 200.0 + TIMES.retry_soon[1]
    proven.lost(200.5, probing=True)
    assert proven.next() == 200.0 + TIMES.retry_soon[1], "each attempt does not put it off"
    proven.sending(201.0, "deaf")
    proven.sent(201.1)
    assert proven.next() == 201.1 + TIMES.retry[1]
    assert proven.todo(1e9) == SEND, "nothing is given up: there is no session"


def test_probes_that_help_nobody_are_not_sent(proven):
    proven.lost(200.0, probing=False)
    assert proven.todo(1e9) is None


def test_more_channels_have_to_be_proven_from_the_start(proven):
    proven.listening(105.0)
    assert not proven.proven
    assert proven.todo(105.0) == SEND


def test_a_new_session_is_proven_by_a_new_probe(proven):
    proven.sending(110.0, "old")
    proven.lost(111.0, probing=True)
    proven.listening(112.0)
    assert proven.heard(112.1, ["old"]) is None
    assert not proven.proven
    assert proven.todo(112.1) == SEND


def test_a_loss_before_the_first_session_is_probed_too():
    proof = Proof(TIMES, lambda first, last: last)
    proof.lost(100.0, probing=True)
    assert proof.next() == 100.0 + TIMES.retry_soon[1]


def test_while_it_is_deaf_for_long_probes_are_no_more_frequent_than_retries(proven):
    sent, now = [], 200.0
    while now < 800.0:
        proven.lost(now, probing=True)  # an attempt to connect fails each second
        if proven.todo(now) == SEND:
            sent.append(now)
            proven.sending(now, f"probe {now}")
            if len(sent) % 2:
                proven.sent(now + 0.1)
            else:
                proven.not_sent(now + 0.1, hurry=False)
        now += 1.0
    assert all(later - earlier >= TIMES.retry[0] for earlier, later in zip(sent, sent[1:]))
    assert len(sent) >= 600 / (TIMES.retry[1] + 2)


def test_an_hour_of_constant_traffic_has_a_probe_of_its_own_each_minute(proven):
    sent, now = [100.01], 100.0
    while now < 3700.0:
        now += 0.5
        proven.heard(now, ["somebody's"])
        todo = proven.todo(now)
        assert todo != GIVE_UP
        if todo == SEND:
            sent.append(now)
            proven.sending(now, f"probe {now}")
            proven.heard(now + 0.01, ["somebody's"])
            proven.sent(now + 0.02)
            proven.heard(now + 0.03, [f"probe {now}"])
    gaps = [later - earlier for earlier, later in zip(sent, sent[1:])]
    assert max(gaps) <= TIMES.own_probe[1] + 1
    assert min(gaps) >= TIMES.own_probe[0]


def test_a_silent_session_is_given_up_soon_after_it_went_deaf(proven):
    """It is proven at 100; with nothing heard it is known to be deaf within 20 s."""
    while proven.todo(proven.next()) == SEND:
        now = proven.next()
        proven.sending(now, "not heard")
        proven.sent(now + 0.1)
    assert proven.next() <= 100.01 + TIMES.silence[1] + TIMES.heard_within + 0.2


def test_sending_may_take_as_long_as_it_does(proof):
    proof.sending(100.0, "mine")
    assert proof.next() == NEVER
    assert proof.todo(1e6) is None
