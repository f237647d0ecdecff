"""A log handler that waits holds no thread of the addon."""

import logging
import threading
import time

import pytest

from bus_alt_connection.config.timing import Timing
from bus_alt_connection.listener.status import ListenerStatus
from bus_alt_connection.outbox import pending


class Slow(logging.Handler):
    """Writes where it has to wait, as Odoo's ``log_db`` does while the pooler is paused."""

    def __init__(self, level=logging.NOTSET):
        super().__init__(level)
        self.free, self.lines = threading.Event(), []

    def emit(self, record):
        assert self.free.wait(10)
        self.lines.append((record.levelname, record.getMessage(), bool(record.exc_info)))


@pytest.fixture
def slow(caplog):
    caplog.set_level(logging.INFO)
    handler = Slow()
    logging.getLogger().addHandler(handler)
    yield handler
    handler.free.set()
    logging.getLogger().removeHandler(handler)


def test_a_listener_s_line(slow):
    status = ListenerStatus(Timing())
    status.mark_starting(("imbus",))
    begin = time.monotonic()
    status.mark_deaf(0.0, "10.0.0.5:5432: no answer")
    status.mark_listening(1.0, "10.0.0.5:5432", 0.003)
    assert time.monotonic() - begin < 1
    assert not slow.lines
    slow.free.set()
    deadline = time.monotonic() + 5
    while len(slow.lines) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [level for level, _text, _info in slow.lines] == ["ERROR", "INFO"]
    assert "deaf: 10.0.0.5:5432: no answer" in slow.lines[0][1]


def test_an_outbox_s_line_with_an_error(slow):
    begin = time.monotonic()
    try:
        raise ValueError("x")
    except ValueError:
        pending._logger.exception("it fails")
    assert time.monotonic() - begin < 1
    slow.free.set()
    deadline = time.monotonic() + 5
    while not slow.lines and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slow.lines == [("ERROR", "it fails", True)]


def test_a_line_below_the_handler_s_level_and_streams_are_written_at_once(slow, caplog):
    slow.setLevel(logging.ERROR)
    pending._logger.warning("at once")
    assert [record.getMessage() for record in caplog.records] == ["at once"]
