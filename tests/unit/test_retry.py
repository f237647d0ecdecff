"""When to connect again, with a clock of the test's own."""

from bus_alt_connection.retry import Retry
from bus_alt_connection.times import Times


def latest(_first, last):
    return last


def pauses(retry, now, number, lasting=0.0, nobody_there=False, listening=False):
    """Fail so many times in a row; return the pauses and the time afterwards."""
    found = []
    for _attempt in range(number):
        if listening:
            retry.listening(now)
        due = retry.failed(now, now + lasting, nobody_there)
        found.append(round(due - now, 3))
        now = max(due, now + lasting)
    return found, now


def test_pauses_double_and_are_short_in_the_first_minute():
    found, now = pauses(Retry(Times(), latest), 100.0, 62)
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[-1] > 1.0
    assert now > 160


def test_pauses_grow_to_half_a_minute():
    found, _now = pauses(Retry(Times(), latest), 100.0, 75)
    assert found[-4:] == [30.0] * 4
    assert all(later >= earlier for earlier, later in zip(found, found[1:]))


def test_pauses_stay_short_while_nobody_is_there():
    found, _now = pauses(Retry(Times(), latest), 100.0, 500, nobody_there=True)
    assert max(found) == 1.0


def test_a_session_that_held_for_a_minute_ends_the_trouble():
    retry = Retry(Times(), latest)
    _found, now = pauses(retry, 100.0, 80)
    retry.listening(now)
    assert retry.failed(now, now + 60, False) == now + 0.5, "so the next attempt begins at once"


def test_a_path_that_breaks_after_seconds_gets_longer_pauses():
    found, _now = pauses(Retry(Times(), latest), 100.0, 40, lasting=5.0, listening=True)
    assert found[-1] == 30.0


def test_a_later_loss_begins_anew_though_the_first_lasted_long():
    """The session held, whether or not the pooled connection proved it."""
    retry = Retry(Times(), latest)
    _found, now = pauses(retry, 100.0, 80)
    retry.listening(now)
    retry.failed(now, now + 3600, False)
    now += 3600
    found, _now = pauses(retry, now, 3)
    assert max(found) <= 1.0


def test_pauses_are_drawn_from_a_range():
    retry = Retry(Times(), lambda first, last: first)
    assert retry.failed(100.0, 100.0, False) == 100.25


def test_a_path_that_takes_listen_and_breaks_is_not_tried_more_than_twice_a_minute():
    _found, later = pauses(Retry(Times(), latest), 100.0, 40, lasting=5.0, listening=True)
    _found, end = pauses(Retry(Times(), latest), 100.0, 160, lasting=5.0, listening=True)
    assert (end - later) / (160 - 40) == 30.0


def test_a_path_that_breaks_and_is_away_in_turn_gets_longer_pauses_too():
    """For hours: it takes LISTEN, breaks after seconds, and refuses the next connection."""
    retry, now, broken = Retry(Times(), latest), 100.0, []
    while now < 7200:
        retry.listening(now)
        due = retry.failed(now, now + 5.0, False)
        broken.append(due - now)
        now = retry.failed(due, due, True)
        assert now - due <= 1.0, "somebody who is not there is asked each second"
    assert broken == sorted(broken)
    assert broken[-1] == 30.0


def test_a_session_that_held_almost_a_minute_ends_no_trouble():
    retry = Retry(Times(), latest)
    _found, now = pauses(retry, 100.0, 80)
    retry.listening(now)
    assert retry.failed(now, now + 59.9, False) == now + 30.0


def test_a_server_that_comes_to_refuse_after_an_hour_of_nobody_gets_longer_pauses():
    retry = Retry(Times(), latest)
    _found, now = pauses(retry, 100.0, 3600, nobody_there=True)
    found, _now = pauses(retry, now, 6)
    assert found == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_once_nobody_is_there_the_pauses_are_short_again():
    retry = Retry(Times(), latest)
    _found, now = pauses(retry, 100.0, 80)
    found, _now = pauses(retry, now, 3, nobody_there=True)
    assert found == [1.0, 1.0, 1.0]


def test_the_time_that_an_attempt_took_counts_as_a_pause():
    retry = Retry(Times(), latest)
    assert retry.failed(100.0, 110.0, True) <= 110.0
