"""What a leader keeps of a follower, with sockets of the test's own and no server."""

import contextlib
import os
import selectors
import socket
import types
from collections import Counter

import pytest

from bus_alt_connection.config.timing import (
    JOIN_TIMEOUT,
    LEAD_RENEWAL,
    LEAD_TIMEOUT,
    STATUS_INTERVAL,
)
from bus_alt_connection.listener.inboxes import Inboxes
from bus_alt_connection.listener.status import Failure, State
from bus_alt_connection.postgres.wakeup import Stopped
from bus_alt_connection.sharing import frames, lead
from bus_alt_connection.sharing.frames import Heard, Hello, Look, Missed
from bus_alt_connection.sharing.ipc import Timer, open_socket, receive_with_timer
from bus_alt_connection.sharing.lead import WITHOUT_DESCRIPTORS, LeaderWakeup
from bus_alt_connection.sharing.peer import Peer


class Wire:
    """Takes packets, as long as there is room."""

    def __init__(self, room: int = 100):
        self.room, self.sent = room, []

    def send(self, packet: bytes):
        if len(self.sent) >= self.room:
            raise BlockingIOError
        self.sent.append(frames.decode(packet))


def peer(wire, missed=False, server=1):
    return Peer(Hello("imbus", server, missed, True, False), wire.send, own_server=1)


def deliver(one: Peer, *payloads: str):
    one.deliver(payloads)


def test_what_arrives_is_sent():
    wire = Wire()
    deliver(peer(wire), "a", "b", "a")
    assert wire.sent == [Heard(["a", "b"])]


def test_nothing_is_kept_for_one_that_does_not_read():
    wire = Wire(room=1)
    slow = peer(wire)
    for payload in ("a", "b", "c"):
        deliver(slow, payload)
    assert (wire.sent, slow.owes_look, slow.is_full) == ([Heard(["a"])], True, True)
    wire.room, slow.is_full = 100, False
    slow.look()
    deliver(slow, "d")
    assert wire.sent == [Heard(["a"]), Look(), Heard(["d"])]
    assert not slow.owes_look


def test_one_that_has_gone_costs_nothing():
    def send(_packet):
        raise BrokenPipeError

    gone = Peer(Hello("imbus", 1, False, True, False), send, own_server=1)
    deliver(gone, "a")
    gone.look()


def test_one_of_another_server_is_told_apart():
    assert peer(Wire()).server is None
    assert peer(Wire(), server=2).server == 2


# --- with real sockets, and a clock of the test's own ----------------------------------


class Leading:
    """A leader whose listener only has a state."""

    def __init__(self):
        self.now = 1000.0
        self.name = f"\0bus_alt_connection-test-{id(self)}"
        server = open_socket()
        server.bind(self.name)
        server.listen(10)
        self.inboxes = Inboxes()
        self.lead = LeaderWakeup(server, 1, lambda: self.now)
        status = types.SimpleNamespace(
            state=State.LISTENING, reason="", where="", proven=990.0, round_trip=None, channels=()
        )
        status.channels = ("imbus",)
        self.lead.listener = types.SimpleNamespace(
            status=status,
            failure_counts=dict.fromkeys(Failure, 0),
            notification_counts=Counter(),
            inboxes=self.inboxes,
            add=self.inboxes.add,
            remove=self.inboxes.remove,
        )
        self.clients = contextlib.ExitStack()

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.clients.callback(made.close)
        made.settimeout(1)
        made.connect(self.name)
        return made

    def follow(self, missed=False, wants_status=True):
        client = self.connect()
        client.send(frames.encode(Hello("imbus", 1, missed, True, wants_status)))
        self.lead.wait(0)
        data, timer = receive_with_timer(client)
        self.clients.callback(timer.close)
        return client, frames.decode(data), timer


@pytest.fixture
def leading():
    made = Leading()
    with made.clients:
        yield made
        made.lead.close()


def read(client) -> list:
    """Return the kinds of frames that are there."""
    client.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            data = client.recv(frames.MAX_FRAME)
            if not data:
                return [*found, "end"]
            found.append(type(frames.decode(data)).__name__)
    return found


def test_a_follower_is_welcomed(leading):
    _client, status, timer = leading.follow()
    assert (status.state, status.proven_ago, status.server) == ("listening", 10.0, 1)
    assert isinstance(timer, Timer) and not timer.has_expired()
    assert leading.lead.followers == 1


def test_its_status_comes_at_each_change_and_its_counts_once_a_second(leading):
    client, _status, _timer = leading.follow()
    leading.lead.wait(0)
    read(client)
    leading.lead.wait(0)
    assert read(client) == []
    leading.lead.listener.notification_counts["imbus"] += 1
    leading.lead.wait(0)
    assert read(client) == []
    leading.now += STATUS_INTERVAL
    leading.lead.wait(0)
    assert read(client) == ["Status"]
    leading.now += LEAD_RENEWAL
    leading.lead.wait(0)
    assert read(client) == [], "nothing has changed"
    leading.lead.listener.status.state = State.DEAF
    leading.lead.wait(0)
    assert read(client) == ["Status"]


def test_one_that_wants_no_status_is_not_woken(leading):
    client, _status, _timer = leading.follow(wants_status=False)
    for _time in range(5):
        leading.now += LEAD_RENEWAL
        leading.lead.listener.status.state = list(State)[_time % 4]
        leading.lead.wait(0)
    assert read(client) == []


def test_what_was_missed_is_looked_for_once_notifications_arrive(leading):
    leading.lead.listener.status.state = State.STARTING
    client, _status, _timer = leading.follow(missed=True, wants_status=False)
    leading.lead.wait(0)
    assert read(client) == []
    leading.lead.listener.status.state = State.LISTENING
    leading.lead.wait(0)
    assert read(client) == ["Look"]


def test_what_was_missed_is_looked_for_once_the_session_listens_on_that_channel(leading):
    leading.lead.listener.status.channels = ("cron_trigger",)
    client, _status, _timer = leading.follow(missed=True, wants_status=False)
    leading.lead.wait(0)
    assert read(client) == []
    leading.lead.listener.status.channels = ("cron_trigger", "imbus")
    leading.lead.wait(0)
    assert read(client) == ["Look"]


def test_one_that_reads_again_is_told_to_look(leading):
    client, _status, _timer = leading.follow(wants_status=False)
    (inbox,) = leading.inboxes
    while not inbox.is_full:
        deliver(inbox, "x" * 1000)
    leading.lead.wait(0)
    assert inbox.is_full
    kinds = read(client)
    assert set(kinds) == {"Heard"}
    leading.lead.wait(0)  # its socket has room
    leading.lead.wait(0)
    assert read(client) == ["Look"]


def test_one_that_could_not_look_is_told_after_the_next_probe(leading):
    client, _status, _timer = leading.follow(wants_status=False)
    client.send(frames.encode(Missed()))
    leading.lead.wait(0)
    (inbox,) = leading.inboxes
    assert inbox.needs_catch_up
    assert read(client) == []


def test_one_that_ends_is_forgotten(leading):
    client, _status, _timer = leading.follow()
    client.close()
    leading.lead.wait(0)
    assert list(leading.inboxes) == [] and leading.lead.followers == 0


def test_one_that_says_nothing_is_closed(leading):
    client = leading.connect()
    leading.lead.wait(0)
    leading.now += JOIN_TIMEOUT / 2
    leading.lead.wait(0)
    assert read(client) == []
    leading.now += JOIN_TIMEOUT / 2
    leading.lead.wait(0)
    assert read(client) == ["end"]


def test_a_leader_that_was_held_up_is_one_no_more(leading):
    leading.follow()
    leading.now += LEAD_TIMEOUT - 0.1
    leading.lead.wait(0)
    leading.now += LEAD_TIMEOUT
    with pytest.raises(Stopped):
        leading.lead.wait(0)
    assert leading.lead.stopped


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of its sockets
def test_a_leader_that_gets_no_file_descriptor_keeps_none(monkeypatch):
    def refused():
        raise OSError(24, "Too many open files")

    with contextlib.closing(open_socket()) as server:
        before = os.listdir("/proc/self/fd")
        with monkeypatch.context() as patch, pytest.raises(OSError):
            patch.setattr(selectors, "DefaultSelector", refused)
            LeaderWakeup(server, 1)
        assert os.listdir("/proc/self/fd") == before


class Descriptors:
    """The file descriptors of a process: there are some, or there are none."""

    left = True

    def open_socket(self):
        if not self.left:
            raise OSError(24, "Too many open files")
        return open_socket()


@pytest.fixture
def descriptors(monkeypatch):
    made = Descriptors()
    monkeypatch.setattr(lead, "open_socket", made.open_socket)
    return made


def renew(leading, times: int):
    for _time in range(times):
        leading.now += LEAD_RENEWAL
        leading.lead.wait(0)


def test_a_deaf_leader_without_file_descriptors_gives_the_lead_up(leading, descriptors, caplog):
    client, _status, _timer = leading.follow()
    status = leading.lead.listener.status
    descriptors.left = False
    renew(leading, 10)  # it listens
    status.state = State.DEAF
    renew(leading, WITHOUT_DESCRIPTORS - 1)
    descriptors.left = True
    renew(leading, 1)
    descriptors.left = False
    renew(leading, WITHOUT_DESCRIPTORS - 1)
    with pytest.raises(Stopped):
        renew(leading, 1)
    assert leading.lead.stopped and leading.lead.pause
    (record,) = caplog.records
    assert "Too many open files" in record.getMessage()
    leading.lead.close()
    assert read(client)[-1] == "end"


def test_it_keeps_the_lead_where_no_process_follows(leading, descriptors):
    leading.lead.listener.status.state = State.DEAF
    descriptors.left = False
    renew(leading, 10)


def test_the_timer_expires_where_nobody_sets_it():
    timer = Timer.new()
    timer.set(0.05)
    assert not timer.has_expired()
    with contextlib.closing(timer), contextlib.suppress(TimeoutError):
        for _time in range(1000):
            if timer.has_expired():
                break
        timer.set(0.001)
        while not timer.has_expired():
            pass
        timer.set(30)
        assert not timer.has_expired()
