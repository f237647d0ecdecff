"""How a follower takes what its leader tells, and when it gives it up; with a socket alone."""

import contextlib
import select
import socket
import time
import types

import pytest

from bus_alt_connection.config.parameters import Settings
from bus_alt_connection.listener.status import Failure, State
from bus_alt_connection.sharing import follow as module
from bus_alt_connection.sharing import frames, sharing
from bus_alt_connection.sharing.follow import Feed, Follower
from bus_alt_connection.sharing.frames import Heard, Look, Missed, Status
from bus_alt_connection.sharing.ipc import Timer
from bus_alt_connection.sharing.link import LeaderLost, Link
from bus_alt_connection.sharing.sharing import Sharing

from ...stack.inboxes import inbox_with

PID = 4711


def status(state: str, **others) -> Status:
    told = Status(state, "", "db:5432", 2.0, 0.003, ["cron_trigger", "imbus"], {}, {}, 3, 1)
    return told._replace(**others)


class Led:
    """The end of a leader, and the link to it."""

    def __init__(self):
        self.end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.end.settimeout(5)
        self.timer = Timer.new()
        self.timer.set(60)
        self.link = Link(theirs, self.timer, PID, status("starting"))
        self.lost: list = []

    def on_lost(self, _inbox, error: LeaderLost):
        self.lost.append(error)

    def tell(self, frame):
        self.end.send(frames.encode(frame))


@pytest.fixture
def led():
    made = Led()
    yield made
    made.end.close()
    made.link.close()


@pytest.fixture
def fed(led):
    inbox = inbox_with("cron_trigger", list_databases=lambda: ["a", "b"])
    Feed(led.link, inbox, led.on_lost)
    yield inbox
    inbox.close()


def is_readable(inbox) -> bool:
    return bool(select.select([inbox], [], [], 0)[0])


def payloads(inbox) -> list:
    inbox.poll()
    return [notify.payload for notify in inbox.notifies]


def test_what_was_heard_wakes_the_loop(led, fed):
    assert not is_readable(fed)
    led.tell(Heard(["a"]))
    led.tell(Heard(["b", "a"]))
    assert is_readable(fed)
    assert payloads(fed) == ["a", "b"]
    assert not is_readable(fed) and payloads(fed) == []


def test_told_to_look_it_looks_at_everything(led, fed):
    led.tell(Look())
    assert payloads(fed) == ["a", "b"]


def test_one_that_cannot_look_says_so(led):
    def fails():
        raise OSError("PostgreSQL is down")

    inbox = inbox_with("cron_trigger", list_databases=fails)
    Feed(led.link, inbox, led.on_lost)
    led.tell(Look())
    assert payloads(inbox) == []
    assert frames.decode(led.end.recv(1000)) == Missed()
    inbox.close()


def test_a_leader_that_ends_is_lost_after_what_it_said(led, fed):
    led.tell(Heard(["a"]))
    led.end.close()
    assert is_readable(fed)
    assert payloads(fed) == ["a"]
    (error,) = led.lost
    assert (str(error), error.silent_pid) == ("process 4711 has ended", None)
    assert not is_readable(fed), "it waits on something else now"


def test_a_leader_that_is_silent_is_given_up(led, fed):
    led.timer.set(0.001)
    assert select.select([fed], [], [], 5)[0]
    assert payloads(fed) == []
    (error,) = led.lost
    assert error.silent_pid == PID and "is silent for 20 s" in str(error)


def test_a_leader_that_talks_nonsense_is_lost(led, fed):
    led.end.send(b"nonsense")
    assert payloads(fed) == []
    (error,) = led.lost
    assert str(error) == "process 4711 sent what cannot be read: not a frame: b'nonsense'"
    assert error.silent_pid is None


def test_a_closed_inbox_ends_the_connection(led, fed):
    fed.close()
    assert led.end.recv(10) == b""
    with pytest.raises(OSError):
        fed.poll()
    assert not led.lost


@pytest.fixture
def follow(led):
    """A function that starts the thread of a bus."""
    with contextlib.ExitStack() as stack:

        def follow(quiet: bool, batches=(["all"],)) -> Follower:
            inbox = inbox_with("imbus", True, catch_up_payloads=lambda told=(): list(batches))
            inbox.needs_catch_up = False
            follower = Follower(led.link, inbox, quiet, led.on_lost)
            follower.inbox = inbox
            follower.start()
            stack.callback(follower.join, 5)
            stack.callback(inbox.close)
            return follower

        yield follow


def test_the_thread_of_a_bus_passes_on_what_was_heard(led, follow):
    follower = follow(quiet=True)
    led.tell(Heard(['["a"]']))
    assert select.select([follower.inbox], [], [], 5)[0]
    assert payloads(follower.inbox) == ['["a"]']
    led.tell(Look())
    assert select.select([follower.inbox], [], [], 5)[0]
    assert payloads(follower.inbox) == ["all"]


@pytest.mark.parametrize("order", [("Look", "Status"), ("Status", "Look")])
def test_what_was_told_while_deaf_is_told_again_once_it_listens(led, follow, order):
    frames_by_name = {"Look": Look(), "Status": status("listening")}
    follower = follow(quiet=True, batches=(["first"], ["second"]))
    led.tell(status("deaf", reason="refused"))
    led.tell(Look())
    assert select.select([follower.inbox], [], [], 5)[0]
    assert payloads(follower.inbox) == ["first"], "the round has begun"
    for name in order:
        led.tell(frames_by_name[name])
    told: list = []
    while select.select([follower.inbox], [], [], 1)[0]:
        told += payloads(follower.inbox)
    assert "first" in told and told[-1] == "second"


def no_descriptor():
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize("where", ["its selector", "what it reads"])
@pytest.mark.parametrize("first", [True, False])
def test_a_thread_that_meets_an_unexpected_error_looks_for_a_leader_again_after_a_while(
    led, follow, monkeypatch, caplog, where, first
):
    monkeypatch.setattr(module, "AFTER_UNEXPECTED_ERROR", 0.1)
    monkeypatch.setattr(module, "_logged_errors", set() if first else {OSError})
    if where == "its selector":
        no_selectors = types.SimpleNamespace(DefaultSelector=no_descriptor)
        monkeypatch.setattr(module, "selectors", no_selectors)
    else:
        monkeypatch.setattr(led.link, "receive", no_descriptor)
    began = time.monotonic()
    follow(quiet=True).join(5)
    assert time.monotonic() - began >= 0.1
    (lost,) = led.lost
    assert "Too many open files" in str(lost)
    assert led.link.socket.fileno() == -1, "its leader sees that it has gone"
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["imbus: unexpected error, trying again"] * first


def test_a_channel_on_which_the_leader_does_not_listen_yet_is_not_listening(led, follow):
    follower = follow(quiet=True)
    led.tell(status("listening", channels=["cron_trigger"]))
    led.tell(Heard(["the end"]))
    assert select.select([follower.inbox], [], [], 5)[0]
    assert follower.status.state is State.STARTING


@pytest.mark.parametrize("quiet", [True, False])
def test_its_status_is_the_leader_s_and_logged_once_for_a_server(led, follow, caplog, quiet):
    caplog.set_level("INFO")
    follower = follow(quiet)
    assert (follower.status.state, follower.leads, follower.followers) == (State.STARTING, False, 3)
    for told in (
        status("listening", notifications={"imbus": 5}, failures={"lost": 2}),
        status("deaf", reason="db:5432: Connection refused"),
        status("unknown", reason="the pooler is away"),
        status("listening"),
    ):
        led.tell(told)
    led.tell(Heard(["the end"]))
    assert select.select([follower.inbox], [], [], 5)[0]
    assert follower.status.state is State.LISTENING
    assert follower.channels == ["cron_trigger", "imbus"]
    assert follower.failure_counts == dict.fromkeys(Failure, 0)
    said = [record.getMessage() for record in caplog.records]
    if quiet:
        assert said == []
    else:
        assert "listening at db:5432, by process 4711" in said[0]
        assert ": deaf: db:5432: Connection refused" in said[1]
        assert len(said) == 4
    assert not led.lost


@pytest.mark.parametrize("fixed_fileno", [False, True], ids=["cron", "bus"])
def test_where_no_file_descriptor_is_to_be_had_none_is_kept(led, monkeypatch, fixed_fileno):
    def refused():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(sharing, "connect", lambda *_arguments: led.link)
    made = Sharing(Settings({}, "postgres", {}, {}, {}), "1", 1)
    with contextlib.closing(inbox_with("imbus", fixed_fileno=fixed_fileno)) as inbox:
        monkeypatch.setattr(select, "epoll", refused)
        monkeypatch.setattr(module, "Wakeup", refused)
        with pytest.raises(OSError):
            made.subscribe(inbox)
        assert (led.link.socket.fileno(), led.timer.fileno()) == (-1, -1)
