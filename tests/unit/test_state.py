"""One line for each change of state."""

import logging

import pytest

from bus_alt_connection import state


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [(r.levelname, r.getMessage()) for r in caplog.records]


def test_a_loss_is_said_once_and_how_long_it_lasted(lines, monkeypatch):
    clock = iter([0.0, 10.0, 11.0, 12.5, 12.6])
    monkeypatch.setattr(state.time, "monotonic", lambda: next(clock))
    one = state.State("imbus")
    one.listening("here", 0.004)
    one.deaf("gone")
    one.deaf("still gone")
    one.listening("here", 0.002)
    one.listening("here", None)
    assert lines() == [
        ("INFO", "imbus: listening at here, heard after 4 ms"),
        ("ERROR", "imbus: deaf: gone. Trying again until it hears."),
        ("INFO", "imbus: back after 2.5 s, listening at here, heard after 2 ms"),
    ]


def test_a_loss_is_repeated_each_minute(lines, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: now[0])
    one = state.State("imbus")
    one.deaf("gone")
    for second in range(1, 181):
        now[0] = second
        one.deaf("refused")
        one.remind()
    assert [line for level, line in lines() if level == "WARNING"] == [
        f"imbus: still deaf after {minute * 60} s: refused" for minute in (1, 2, 3)
    ]


def test_unknown_is_said_once_and_ends(lines):
    one = state.State("imbus")
    one.unknown("here", "refused")
    one.unknown("here", "refused")
    one.listening("here", 0.001)
    assert [level for level, _line in lines()] == ["WARNING", "INFO"]
    assert one.reason == ""
