"""When to connect again, with a clock of the test's own."""

from bus_alt_connection.config.timing import Timing
from bus_alt_connection.postgres.backoff import Backoff


def latest(_first, last):
    return last


def pauses(backoff, now, number, lasting=0.0, unavailable=False, listening=False):
    """Fail so many times in a row; return the pauses and the time afterwards."""
    found = []
    for _attempt in range(number):
        if listening:
            backoff.listening(now)
        due = backoff.next_attempt_at(now, now + lasting, unavailable)
        found.append(round(due - now, 3))
        now = max(due, now + lasting)
    return found, now


def test_pauses_double_and_are_short_in_the_first_minute():
    found, now = pauses(Backoff(Timing(), latest), 100.0, 62)
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[-1] > 1.0
    assert now > 160


def test_pauses_grow_to_half_a_minute():
    found, _now = pauses(Backoff(Timing(), latest), 100.0, 75)
    assert found[-4:] == [30.0] * 4
    assert all(later >= earlier for earlier, later in zip(found, found[1:]))


def test_pauses_stay_short_while_nobody_is_there():
    found, _now = pauses(Backoff(Timing(), latest), 100.0, 500, unavailable=True)
    assert max(found) == 1.0


def test_a_session_that_held_for_a_minute_ends_the_trouble():
    backoff = Backoff(Timing(), latest)
    _found, now = pauses(backoff, 100.0, 80)
    backoff.listening(now)
    assert backoff.next_attempt_at(now, now + 60, False) == now + 0.5, (
        "so the next attempt begins at once"
    )


def test_a_path_that_breaks_after_seconds_gets_longer_pauses():
    found, _now = pauses(Backoff(Timing(), latest), 100.0, 40, lasting=5.0, listening=True)
    assert found[-1] == 30.0


def test_a_later_loss_begins_anew_though_the_first_lasted_long():
    """The session held, whether or not the pooled connection proved it."""
    backoff = Backoff(Timing(), latest)
    _found, now = pauses(backoff, 100.0, 80)
    backoff.listening(now)
    backoff.next_attempt_at(now, now + 3600, False)
    now += 3600
    found, _now = pauses(backoff, now, 3)
    assert max(found) <= 1.0


def test_pauses_are_drawn_from_a_range():
    backoff = Backoff(Timing(), lambda first, last: first)
    assert backoff.next_attempt_at(100.0, 100.0, False) == 100.25


def test_a_path_that_takes_listen_and_breaks_is_not_tried_more_than_twice_a_minute():
    _found, later = pauses(Backoff(Timing(), latest), 100.0, 40, lasting=5.0, listening=True)
    _found, end = pauses(Backoff(Timing(), latest), 100.0, 160, lasting=5.0, listening=True)
    assert (end - later) / (160 - 40) == 30.0


def test_a_path_that_breaks_and_is_away_in_turn_gets_longer_pauses_too():
    """For hours: it takes LISTEN, breaks after seconds, and refuses the next connection."""
    backoff, now, broken = Backoff(Timing(), latest), 100.0, []
    while now < 7200:
        backoff.listening(now)
        due = backoff.next_attempt_at(now, now + 5.0, False)
        broken.append(due - now)
        now = backoff.next_attempt_at(due, due, True)
        assert now - due <= 1.0, "somebody who is not there is asked each second"
    assert broken == sorted(broken)
    assert broken[-1] == 30.0


def test_a_session_that_held_almost_a_minute_ends_no_trouble():
    backoff = Backoff(Timing(), latest)
    _found, now = pauses(backoff, 100.0, 80)
    backoff.listening(now)
    assert backoff.next_attempt_at(now, now + 59.9, False) == now + 30.0


def test_a_server_that_comes_to_refuse_after_an_hour_of_nobody_gets_longer_pauses():
    backoff = Backoff(Timing(), latest)
    _found, now = pauses(backoff, 100.0, 3600, unavailable=True)
    found, _now = pauses(backoff, now, 6)
    assert found == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_once_nobody_is_there_the_pauses_are_short_again():
    backoff = Backoff(Timing(), latest)
    _found, now = pauses(backoff, 100.0, 80)
    found, _now = pauses(backoff, now, 3, unavailable=True)
    assert found == [1.0, 1.0, 1.0]


def test_the_time_that_an_attempt_took_counts_as_a_pause():
    backoff = Backoff(Timing(), latest)
    assert backoff.next_attempt_at(100.0, 110.0, True) <= 110.0
