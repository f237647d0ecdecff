"""Processes of one machine share one listener, whatever happens to the one that leads."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from bus_alt_connection.sharing import sharing

from ...stack.odoo import CHECKOUT
from ...stack.process import start_helper, wait_until
from ..conftest import settings_of


class Sharer:
    """A process like one of Odoo's: ``imbus`` stands for its bus, another channel for its cron."""

    def __init__(self, settings, *channels: str, server: int = 0, wait: bool = True, user: int = 0):
        self.events: list[dict] = []
        command = [sys.executable, "-m", "tests.stack.sharer"]
        self.popen = start_helper(command, cwd=CHECKOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.order(
            database=settings.database,
            listener=settings.listener,
            pooled=settings.pooled,
            channels=channels,
            server=server,
        )
        if wait:
            self.wait_for(lambda event: event.get("ready"), 30)

    def _read(self):
        for line in self.popen.stdout:
            self.events.append(json.loads(line))

    def order(self, **order):
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()

    def wait_for(self, fits, timeout: float = 10.0, since: int = 0) -> dict:
        def found():
            return next((event for event in self.events[since:] if fits(event)), None)

        return wait_until(found, "an event", timeout, 0.002)

    def ask(self, **order) -> dict:
        since = len(self.events)
        self.order(**order)
        return self.wait_for(lambda event: "threads" in event, since=since)

    def gets(self, payload: str, timeout: float = 10.0, since: int = 0) -> dict:
        return self.wait_for(lambda event: payload in event.get("payloads", []), timeout, since)

    @property
    def log(self) -> list[str]:
        return [event["log"] for event in list(self.events) if "log" in event]

    def listens(self, timeout: float = 20.0):
        wait_until(lambda: self.ask()["state"] == "listening", "it listens", timeout)

    def kill(self, signum: int = signal.SIGKILL):
        self.popen.send_signal(signum)

    def end(self):
        print(f"process {self.popen.pid}:", *self.events[-30:], sep="\n  ")
        self.popen.kill()
        self.popen.wait()
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        self._reader.join()
        self.popen.stdout.close()


@pytest.fixture
def sharers():
    with contextlib.ExitStack() as stack:

        def start(*args, **kwargs) -> Sharer:
            made = Sharer(*args, **kwargs)
            stack.callback(made.end)
            return made

        yield start


@pytest.fixture
def group(own_servers, sharers):
    """A server's processes: one that leads, and those that follow it."""
    servers, settings = own_servers, settings_of(own_servers)

    def group(*kinds: str) -> list[Sharer]:
        made = []
        for kind in kinds:
            made.append(sharers(settings, kind, server=1))
            if len(made) == 1:
                made[0].listens()
        return made

    group.servers, group.settings = servers, settings
    return group


def notify(servers, channel: str, payload: str):
    servers.postgres.execute("SELECT pg_notify(%s, %s)", [channel, payload])


def test_one_session_and_all_hear(group):
    leader, *followers = group("imbus", "cron_trigger", "cron_trigger", "imbus")
    wait_until(lambda: leader.ask()["channels"] == ["cron_trigger", "imbus"], "both channels")
    leader.listens()
    notify(group.servers, "cron_trigger", "a database")
    notify(group.servers, "imbus", "a message")
    for one in followers[:2]:
        one.gets("a database")
    for one in (leader, followers[2]):
        one.gets("a message")
    assert len(group.servers.postgres.listeners()) == 1
    assert leader.ask()["followers"] == 3
    asked = followers[2].ask()
    assert (asked["leads"], asked["followers"]) == (False, 3)
    assert asked["channels"] == ["cron_trigger", "imbus"]
    assert followers[0].ask()["threads"] == ["MainThread", "Thread-1"], "it has none of its own"
    assert not any(one.log for one in followers)


@pytest.mark.parametrize("kinds", [("imbus", "cron_trigger"), ("cron_trigger", "imbus")])
def test_a_leader_that_is_killed(group, kinds):
    leader, *followers = group(*kinds, *kinds)
    while len(followers) > 1:
        killed = time.monotonic()
        marks = [len(one.events) for one in followers]
        leader.kill()
        for one, mark in zip(followers, marks):
            one.gets("everything", 5, mark)
        print(f"all look at everything after {time.monotonic() - killed:.3f} s")
        leader = wait_until(
            lambda: next((one for one in followers if one.ask()["leads"]), None), "one leads"
        )
        assert sum("listens for the others from now on" in line for line in leader.log) == 1
        followers.remove(leader)
        leader.listens()
        notify(group.servers, "imbus", "after it")
        notify(group.servers, "cron_trigger", "after it")
        for one in (leader, *followers):
            one.gets("after it")
        for one in (leader, *followers):
            one.events.clear()
    wait_until(lambda: len(group.servers.postgres.listeners()) == 1, "one session")


def test_processes_that_start_at_once_have_one_leader(own_servers, sharers):
    settings = settings_of(own_servers)
    made = [sharers(settings, "imbus", wait=False) for _ in range(6)]
    for one in made:
        one.wait_for(lambda event: event.get("ready"), 30)
        one.listens()
    assert sum(one.ask()["leads"] for one in made) == 1
    assert len(own_servers.postgres.listeners()) == 1
    # each is a server of its own, with a log of its own
    for one in made:
        assert sum(": listening at " in line for line in one.log) == 1
        assert one.ask()["channels"] == ["imbus"]


def test_another_setting_has_another_leader(own_servers, sharers):
    own_servers.postgres.create_role("listener", "other-password", "")
    role = {"imdispatcher_db_user": "listener", "imdispatcher_db_password": "other-password"}
    for settings in (settings_of(own_servers), settings_of(own_servers, **role)):
        for _time in range(2):
            sharers(settings, "imbus").listens()
    assert len(own_servers.postgres.listeners()) == 2


def test_a_leader_that_loses_its_session(group):
    leader, *followers = group("imbus", "cron_trigger", "imbus")
    leader.listens()
    for one in followers:
        one.events.clear()
    group.servers.postgres.execute("SELECT pg_terminate_backend(%s)", [backend(group)])
    for one in followers:
        one.gets("everything", 5)
    wait_until(lambda: followers[1].ask()["failures"]["lost"] == 1, "it is counted")
    followers[1].listens()


def backend(group) -> int:
    ((pid, _name, _port),) = group.servers.postgres.listeners()
    return pid


def test_a_follower_learns_that_nothing_arrives(group):
    leader, follower = group("imbus", "imbus")
    group.servers.postgres.stop()
    wait_until(lambda: follower.ask()["state"] == "deaf", "deaf")
    group.servers.postgres.start()
    follower.listens()
    assert not any("deaf" in line for line in follower.log), "its leader is of the same server"
    assert sum(": deaf: " in line for line in leader.log) == 1


def test_a_leader_that_closes_its_inbox(group):
    leader, *followers = group("cron_trigger", "imbus", "cron_trigger")
    for one in followers:
        one.events.clear()
    leader.ask(close=True)
    for one in followers:
        one.gets("everything", 5)
    wait_until(lambda: sum(one.ask()["leads"] for one in followers) == 1, "another one leads")
    wait_until(lambda: len(group.servers.postgres.listeners()) == 1, "one session")


def test_a_child_of_the_leader_does_not_keep_the_name(group):
    leader, follower = group("cron_trigger", "cron_trigger")
    leader.ask(fork=True)
    follower.events.clear()
    leader.kill()
    follower.gets("everything", 5)
    assert follower.ask()["leads"]


def test_a_follower_that_reads_nothing(group):
    leader, busy, other = group("imbus", "cron_trigger", "cron_trigger")
    wait_until(lambda: leader.ask()["channels"] == ["cron_trigger", "imbus"], "both channels")
    leader.listens()
    busy.ask(busy=True)
    notify(group.servers, "cron_trigger", "wake")
    busy.gets("wake")
    before = memory(leader)
    query = "SELECT pg_notify('cron_trigger', 'database ' || n) FROM generate_series(%s, %s) n"
    for first in range(0, 20_000, 1000):
        group.servers.postgres.execute(query, [first, first + 999])
        other.gets(f"database {first + 999}", 5)
    assert memory(leader) - before < 1e6
    since = len(busy.events)
    busy.ask(busy=False)
    busy.gets("everything", 5, since)
    notify(group.servers, "cron_trigger", "afterwards")
    busy.gets("afterwards", 5)


def memory(process: Sharer) -> int:
    return psutil.Process(process.popen.pid).memory_info().rss


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("imbus", "cron_trigger"), ("cron_trigger", "imbus")])
def test_a_leader_that_is_stopped(group, kinds):
    leader, *followers = group(*kinds, *kinds)
    for one in followers:
        one.events.clear()
    leader.kill(signal.SIGSTOP)
    for one in followers:
        one.gets("everything", 30)
    wait_until(lambda: sum(one.ask()["leads"] for one in followers) == 1, "one leads")
    wait_until(lambda: len(group.servers.postgres.listeners()) == 2, "one session, and the old one")
    newcomer = Sharer(group.settings, "imbus", server=1)
    newcomer.listens()
    leader.kill(signal.SIGCONT)
    leader.gets("everything", 10, 2)
    wait_until(lambda: len(group.servers.postgres.listeners()) == 1, "one session")
    wait_until(lambda: not leader.ask()["leads"], "its own listener has ended")
    notify(group.servers, "imbus", "afterwards")
    notify(group.servers, "cron_trigger", "afterwards")
    for one in (leader, newcomer, *followers):
        one.gets("afterwards")
    newcomer.end()


@pytest.mark.slow
def test_a_leader_without_file_descriptors(group):
    leader, *followers = group("imbus", "imbus", "cron_trigger")
    limits = resource.prlimit(leader.popen.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(leader.popen.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    for one in followers:
        one.events.clear()
    group.servers.postgres.execute("SELECT pg_terminate_backend(%s)", [backend(group)])
    wait_until(lambda: sum(one.ask()["leads"] for one in followers) == 1, "another one leads", 30)
    for one in followers:
        one.gets("everything", 5)
    mark = len(leader.events)
    resource.prlimit(leader.popen.pid, resource.RLIMIT_NOFILE, limits)
    leader.gets("everything", 5, mark)
    notify(group.servers, "imbus", "afterwards")
    for one in (leader, followers[0]):
        one.gets("afterwards")
    wait_until(lambda: len(group.servers.postgres.listeners()) == 1, "one session")
    assert sum("gets no file descriptor" in line for line in leader.log) == 1


def test_strangers(group):
    """Connections that are no followers cost one line each kind, and nothing else."""
    leader, follower = group("imbus", "cron_trigger")
    leader.listens()
    (name, _second) = sharing.names(group.settings, "1")
    with contextlib.ExitStack() as stack:

        def stranger(*packets: bytes) -> socket.socket:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(made.close)
            made.settimeout(5)
            made.connect(name)
            for packet in packets:
                with contextlib.suppress(BrokenPipeError):
                    made.send(packet)
            return made

        garbage = [b"x", b"\xff" * 70_000, b"[]", b'["Hello"]', b'["Status"]', b"{}", b"0" * 4000]
        garbage += [b'["Hello","a; DROP TABLE a",1,true,true,true]', b"[" * 100_000]
        for packet in garbage:
            assert stranger(packet).recv(10) == b""
        hello = b'["Hello","imbus",1,false,false,false]'
        for packet in garbage:
            welcomed = stranger(hello, packet)
            with contextlib.suppress(ConnectionResetError):
                assert welcomed.recv(100_000).startswith(b'["Status"')
                assert welcomed.recv(10) == b""
        silent = [stranger() for _ in range(200)]
        for _time in range(1000):
            stranger().close()
        notify(group.servers, "cron_trigger", "all the while")
        follower.gets("all the while")
        assert silent[0].recv(10) == b"", "too many"
        silent[-1].settimeout(15)
        assert silent[-1].recv(10) == b"", "too long"
    wait_until(lambda: leader.ask()["followers"] == 1, "they are forgotten")
    refused = [line for line in leader.log if line.startswith("refused a process")]
    assert 3 <= len(refused) <= 4 and len(set(refused)) == len(refused)


@pytest.mark.parametrize("answers", [True, False])
def test_the_name_is_taken_by_another_program(own_servers, sharers, answers):
    settings = settings_of(own_servers)
    with contextlib.ExitStack() as stack:
        for name in sharing.names(settings, "1"):
            taken = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            taken.bind(name)
            taken.listen()
            if answers:
                threading.Thread(target=answer, args=[taken], daemon=True).start()
        alone = sharers(settings, "imbus")
        alone.listens(40)
        (line,) = (line for line in alone.log if "no listener is shared" in line)
        assert ("answer as a leader" if answers else "did not answer") in line
        notify(own_servers, "imbus", "a message")
        alone.gets("a message")
        if answers:
            taken.shutdown(socket.SHUT_RDWR)


def answer(taken: socket.socket):
    with contextlib.suppress(OSError):
        while True:
            connected = taken.accept()[0]
            connected.send(b'["Look"]')
            connected.recv(10)
            connected.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user(own_servers, sharers):
    """Neither a leader nor a follower of another user is taken."""
    settings = settings_of(own_servers)
    names = sharing.names(settings, "1")
    command = (
        "import os, socket, sys; os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind(sys.argv[1].replace('0', chr(0), 1)); s.listen()\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", command, names[0].replace("\0", "0")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        first, second = (sharers(settings, "imbus") for _ in range(2))
        second.listens()
        assert len(own_servers.postgres.listeners()) == 1, "they share the second name"
        connect = (
            "import os, socket, sys; os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "s.connect(sys.argv[1].replace('0', chr(0), 1)); print(s.recv(10))"
        )
        argv = [sys.executable, "-c", connect, names[1].replace("\0", "0")]
        assert subprocess.run(argv, capture_output=True, check=True).stdout == b"b''\n"

        def refused():
            return any("it is one of user 65534" in line for line in first.log + second.log)

        wait_until(refused, "the one that leads has refused it")
    finally:
        holder.kill()
        holder.communicate()
