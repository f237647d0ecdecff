"""One line for each change of state, with a clock of the test's own."""

import logging

import pytest

from bus_alt_connection.config.timing import Timing
from bus_alt_connection.listener.status import ListenerStatus, State


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [(r.levelname, r.getMessage()) for r in caplog.records]


@pytest.fixture
def status():
    made = ListenerStatus(Timing())
    made.mark_starting(("imbus",))
    return made


def test_a_loss_is_said_once_and_how_long_it_lasted(lines, status):
    status.mark_listening(0.0, "here", 0.004)
    status.mark_deaf(10.0, "gone")
    status.mark_deaf(11.0, "still gone")
    status.mark_listening(12.5, "here", 0.002)
    status.mark_listening(12.6, "here", None)
    assert lines() == [
        ("INFO", "imbus: listening at here, heard after 4 ms"),
        ("ERROR", "imbus: deaf: gone. Trying again until it hears."),
        ("INFO", "imbus: back after 2.5 s, listening at here, heard after 2 ms"),
    ]
    assert status.reason == ""


def test_a_loss_is_repeated_each_minute(lines, status):
    for second in range(181):
        status.mark_deaf(float(second), "gone" if second == 0 else "refused")
        status.remind(float(second))
    assert [line for level, line in lines() if level == "WARNING"] == [
        f"imbus: still deaf after {minute * 60} s: refused" for minute in (1, 2, 3)
    ]


def test_unknown_is_said_once_and_ends(lines, status):
    status.mark_unknown(0.5, "here", "refused")
    status.mark_unknown(0.5, "here", "refused")
    assert status.state is State.UNKNOWN
    status.mark_listening(1.0, "here", 0.001)
    assert [level for level, _line in lines()] == ["WARNING", "INFO"]
    assert status.reason == ""


def test_a_pooled_connection_that_is_away_a_second_time_is_told_anew(lines, status):
    """Back and hours later away again is not one long trouble."""
    for begin in (0.0, 7200.0, 14400.0):
        status.mark_listening(begin, "here", 0.001)
        status.mark_unknown(begin + 600, "here", "refused")
        for second in range(0, 600, 10):
            status.remind(begin + 600 + second)
        status.mark_listening(begin + 1200, "here", 0.001)
        status.mark_deaf(begin + 1800, "closed")
        status.mark_listening(begin + 1801, "here", 0.001)
    first, *others = [lines()[i : i + 4] for i in range(1, 12, 4)]
    assert [level for level, _line in first] == ["WARNING", "INFO", "ERROR", "INFO"]
    assert others == [first, first]
    assert "back after 1.0 s" in first[-1][1]


def test_more_channels_are_said_once_they_are_proven(lines, status):
    status.mark_listening(0.0, "here", 0.001)
    status.channels = ("cron_trigger", "imbus")
    assert status.state is State.LISTENING
    for channels in [("cron_trigger", "imbus"), ("imbus",), ("cron_trigger", "imbus")]:
        status.channels = channels  # a cron worker has ended, and the next one began
        status.mark_listening(0.1, "here", 0.001)
    assert [line.split(":")[0] for _level, line in lines()] == ["imbus", "cron_trigger, imbus"]
    status.mark_deaf(1.0, "gone")
    status.mark_starting(("cron_trigger", "imbus"))
    assert status.state is State.DEAF, "another attempt is no change"


def test_a_path_that_breaks_each_5_seconds_keeps_the_log_readable(lines, status):
    now, hours = 0.0, 2
    status.mark_listening(now, "here", 0.001)
    while now < hours * 3600:
        now += 5.0
        status.mark_deaf(now, "closed")
        status.remind(now)
        now += 1.0
        status.mark_listening(now, "here", 0.001)
        status.remind(now)
    assert hours * 60 * 0.9 <= len(lines()) <= hours * 60 * 2 + 10, "a pair a minute"
    assert status.state is State.LISTENING


def test_of_a_loss_that_was_not_said_there_is_a_line_once_it_lasts(lines, status):
    status.mark_listening(0.0, "here", 0.001)
    for second in range(1, 10):
        status.mark_deaf(float(second), "closed")
        status.mark_listening(second + 0.5, "here", 0.001)
    before = len(lines())
    status.mark_deaf(10.0, "closed")
    assert len(lines()) == before
    status.remind(70.0)
    assert lines()[-1] == ("WARNING", "imbus: still deaf after 60 s: closed")
    status.mark_listening(71.0, "here", 0.001)
    assert "back after 61.0 s" in lines()[-1][1]


def test_at_most_three_losses_are_said_in_a_minute_of_flapping_then_one_a_minute(lines, status):
    said = []
    for second in range(0, 7200, 6):
        before = len(lines())
        status.mark_deaf(float(second), "closed")
        said += [second] * (len(lines()) - before)
        status.mark_listening(second + 1.0, "here", 0.001)
    assert said[:3] == [0, 6, 12]
    assert all(fourth - first >= 60 for first, fourth in zip(said, said[3:]))
    assert all(later - earlier >= 60 for earlier, later in zip(said[3:], said[4:]))
    assert len(said) > 100, "it is still said after hours"


def test_after_a_quiet_while_three_losses_are_said_again(lines, status):
    for begin in (0.0, 3600.0):
        for second in range(4):
            status.mark_deaf(begin + second, "closed")
            status.mark_listening(begin + second + 0.5, "here", 0.001)
    assert [level for level, _line in lines()].count("ERROR") == 6


def test_nothing_is_repeated_once_it_hears(lines, status):
    status.mark_deaf(0.0, "gone")
    status.mark_listening(1.0, "here", 0.001)
    before = lines()
    for second in range(1, 600):
        status.remind(float(second))
    assert lines() == before


def test_a_loss_that_was_not_said_but_ends_as_unknown_is_said_within_a_minute(lines, status):
    """Else the last line says for hours that it hears."""
    for second in range(4):
        status.mark_listening(float(second), "here", 0.001)
        status.mark_deaf(second + 0.5, "closed")
    for second in range(4, 80):
        status.mark_unknown(float(second), "here", "refused")
        status.remind(float(second))
    assert "unknown whether notifications arrive" in lines()[-1][1]


def test_the_loss_of_a_session_that_listened_without_proof_is_said(lines, status):
    """An hour in which PgBouncer was away lies between two losses."""
    status.mark_deaf(0.0, "gone")
    status.mark_unknown(0.5, "here", "refused")
    status.mark_deaf(3600.0, "closed")
    status.remind(3661.0)
    assert ("ERROR", "imbus: deaf: closed. Trying again until it hears.") in lines()
    assert "still deaf after 3661 s" not in lines()[-1][1], "it was not deaf for all that time"


def test_a_pooled_connection_that_comes_and_goes_keeps_the_log_readable(lines, status):
    """A probe each 10 s, every other of which finds no slot in PgBouncer."""
    hours = 2
    for second in range(0, hours * 3600, 20):
        status.mark_listening(float(second), "here", 0.001)
        status.mark_unknown(second + 10.0, "here", "no more connections allowed")
    assert len(lines()) <= hours * 60 * 3


def test_losses_of_sessions_that_nothing_proves_keep_the_log_readable(lines, status):
    """PgBouncer is away, and the pauses of ``retry`` have grown to half a minute."""
    hours = 2
    for second in range(0, hours * 3600, 30):
        status.mark_deaf(float(second), "closed")
        status.mark_unknown(second + 1.0, "here", "refused")
        status.remind(second + 5.0)
    assert len(lines()) <= hours * 60 * 3
