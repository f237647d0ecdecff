"""One line for each change of state, with a clock of the test's own."""

import logging

import pytest

from bus_alt_connection.state import DEAF, LISTENING, STARTING, UNKNOWN, State
from bus_alt_connection.times import Times


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [(r.levelname, r.getMessage()) for r in caplog.records]


@pytest.fixture
def state():
    made = State(Times())
    made.starting("imbus")
    return made


def test_a_loss_is_said_once_and_how_long_it_lasted(lines, state):
    state.listening(0.0, "here", 0.004)
    state.deaf(10.0, "gone")
    state.deaf(11.0, "still gone")
    state.listening(12.5, "here", 0.002)
    state.listening(12.6, "here", None)
    assert lines() == [
        ("INFO", "imbus: listening at here, heard after 4 ms"),
        ("ERROR", "imbus: deaf: gone. Trying again until it hears."),
        ("INFO", "imbus: back after 2.5 s, listening at here, heard after 2 ms"),
    ]
    assert state.reason == ""


def test_a_loss_is_repeated_each_minute(lines, state):
    for second in range(181):
        state.deaf(float(second), "gone" if second == 0 else "refused")
        state.remind(float(second))
    assert [line for level, line in lines() if level == "WARNING"] == [
        f"imbus: still deaf after {minute * 60} s: refused" for minute in (1, 2, 3)
    ]


def test_unknown_is_said_once_and_ends(lines, state):
    state.unknown("here", "refused")
    state.unknown("here", "refused")
    assert state.name == UNKNOWN
    state.listening(1.0, "here", 0.001)
    assert [level for level, _line in lines()] == ["WARNING", "INFO"]
    assert state.reason == ""


def test_more_channels_are_said_once_they_are_proven(lines, state):
    state.listening(0.0, "here", 0.001)
    state.starting("cron_trigger, imbus")
    assert state.name == STARTING
    state.listening(0.1, "here", 0.001)
    assert [line.split(":")[0] for _level, line in lines()] == ["imbus", "cron_trigger, imbus"]
    state.deaf(1.0, "gone")
    state.starting("cron_trigger, imbus")
    assert state.name == DEAF, "another attempt is no change"


def test_a_path_that_breaks_each_5_seconds_keeps_the_log_readable(lines, state):
    now, hours = 0.0, 2
    state.listening(now, "here", 0.001)
    while now < hours * 3600:
        now += 5.0
        state.deaf(now, "closed")
        state.remind(now)
        now += 1.0
        state.listening(now, "here", 0.001)
        state.remind(now)
    assert hours * 60 * 0.9 <= len(lines()) <= hours * 60 * 2 + 10, "a pair a minute"
    assert state.name == LISTENING


def test_of_a_loss_that_was_not_said_there_is_a_line_once_it_lasts(lines, state):
    state.listening(0.0, "here", 0.001)
    for second in range(1, 10):
        state.deaf(float(second), "closed")
        state.listening(second + 0.5, "here", 0.001)
    before = len(lines())
    state.deaf(10.0, "closed")
    assert len(lines()) == before
    state.remind(70.0)
    assert lines()[-1] == ("WARNING", "imbus: still deaf after 60 s: closed")
    state.listening(71.0, "here", 0.001)
    assert "back after 61.0 s" in lines()[-1][1]
