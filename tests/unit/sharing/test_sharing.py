"""Which of a process's threads is asked what is known, with a link and without a server."""

import types

import pytest

from bus_alt_connection.config.parameters import Settings
from bus_alt_connection.sharing import sharing
from bus_alt_connection.sharing.link import CannotFollow
from bus_alt_connection.sharing.sharing import Sharing

from ...stack.inboxes import inbox_with
from .test_follow import Led, status


class FakeListener:
    """A listener that fills nothing."""

    leads = True

    def __init__(self, _settings, inbox, wakeup, on_end):
        self.inboxes, self.wakeup, self.on_end = [inbox], wakeup, on_end
        self.failure_counts, self.notification_counts = dict.fromkeys(sharing.Failure, 0), {}
        self.alive = False

    def start(self):
        self.alive = True

    def is_alive(self):
        return self.alive

    def add(self, inbox):
        return self.alive and not self.inboxes.append(inbox)


def no_descriptor(*_args, **_kwargs):
    raise OSError(24, "none left")


@pytest.fixture
def inboxes():
    made = {
        "imbus": inbox_with("imbus", True, fixed_fileno=True),
        "cron_trigger": inbox_with("cron_trigger"),
    }
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def process(monkeypatch):
    """A process, and what it finds when it looks for a leader: links, or an error."""
    monkeypatch.setattr(sharing, "Listener", FakeListener)
    monkeypatch.setattr(sharing, "AFTER_UNEXPECTED_ERROR", 0.001)
    made = Sharing(Settings({}, "postgres", {}, {}, {}), "1", 1)
    made.found = []

    def join(_inbox, _lost):
        found = made.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(made, "_join", join)
    return made


def test_where_cron_listens_for_itself_what_is_known_of_the_bus_stays(process, inboxes):
    led = Led()
    led.link.status = status("listening")
    process.found = [led.link, CannotFollow("no file descriptor"), CannotFollow("none")]
    process.subscribe(inboxes["imbus"])
    follower = process.listener
    process.subscribe(inboxes["cron_trigger"])
    assert process.listener is follower and follower.is_alive()
    led.end.close()
    follower.join(5)
    assert isinstance(process.listener, FakeListener), "the bus listens for itself now"
    assert process.listener.inboxes == [inboxes["imbus"]]


def test_one_that_gave_the_lead_up_lets_others_come_first(process, inboxes, monkeypatch, caplog):
    """It gets no file descriptor: that is tried again, and logged once."""
    lead, pauses, led = types.SimpleNamespace(pause=1.0, deposed="none left"), [], Led()
    process.found = [lead]
    process.subscribe(inboxes["cron_trigger"])
    process.listener.alive = False
    process.found = [OSError(24, "none left"), OSError(24, "none left"), led.link]
    monkeypatch.setattr(sharing.time, "sleep", pauses.append)
    monkeypatch.setattr(sharing, "Listener", no_descriptor)
    process.listener.on_end(inboxes["cron_trigger"])
    assert pauses == [1.0, 0.001, 0.001]
    assert inboxes["cron_trigger"].feed
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    led.end.close()
