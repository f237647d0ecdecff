"""The states of a listener, walked through with a clock of the test's own and no server."""

from __future__ import annotations

from concurrent.futures import Future

import psycopg2
import pytest
from psycopg2.extensions import Notify

from bus_alt_connection.config.parameters import Settings
from bus_alt_connection.config.timing import DEFAULT_TIMING
from bus_alt_connection.listener.inbox import Inbox
from bus_alt_connection.listener.listener import Failure, Listener
from bus_alt_connection.listener.probe import PROBE_CHANNEL, Probe
from bus_alt_connection.listener.session import ProbeTimeout
from bus_alt_connection.listener.status import State
from bus_alt_connection.postgres.hosts import PrimaryUnavailable
from bus_alt_connection.postgres.session import ServerIdentity
from bus_alt_connection.postgres.wakeup import Stopped

from ...stack.inboxes import inbox_with

SERVER = ServerIdentity("postgres", "2026-01-01")


class World:
    """The time, the pooled connection, and what happens on the direct one."""

    def __init__(self):
        self.now = 100.0
        self.connect_error = self.pooled_error = None
        self.probes_arrive = True
        self.traffic: list[Notify] = []
        self.events: list[tuple] = []  # (when, what to do), in order
        self.attempts: list[tuple] = []  # (when, rotation)
        self.listens: list[list] = []
        self.stopped = self.woken = self.closed = False

    def at(self, when: float, action) -> None:
        self.events.append((when, action))
        self.events.sort(key=lambda event: event[0])

    def pass_time(self, seconds: float) -> None:
        """Let time pass until then, or until the next event."""
        until = self.now + min(seconds, 3600.0)
        if self.woken:
            self.woken = False
        elif self.events and self.events[0][0] <= until:
            when, action = self.events.pop(0)
            self.now = max(self.now, when)
            action()
        else:
            assert until < 1e6, "nothing happens any more"
            self.now = max(until, self.now)
        if self.stopped:
            raise Stopped

    # --- what the listener is given -------------------------------------------------

    def wake(self):
        self.woken = True

    def stop(self):
        self.stopped = True

    def wait(self, seconds: float):
        self.pass_time(seconds)

    def close(self):
        self.closed = True

    def connect(self, _parameters, _wakeup, rotation, _on_wait):
        self.attempts.append((self.now, rotation))
        if self.connect_error:
            raise self.connect_error
        return Session(self)

    def send_probe(self, _parameters, _rotation, on_done) -> Probe:
        taken: Future = Future()
        if self.pooled_error:
            taken.set_exception(self.pooled_error)
        else:
            taken.set_result(SERVER)
            if self.probes_arrive:
                self.traffic.append(Notify(0, PROBE_CHANNEL, "the probe"))
        on_done()
        return Probe("the probe", taken)


class Session:
    """A direct connection of this world."""

    tls, endpoint, skipped = "", "10.0.0.5:5432", 0

    def __init__(self, world: World):
        self._world = world
        world.broken = None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def listen(self, channels):
        self._world.listens.append(list(channels))

    def describe(self) -> str:
        return self.endpoint

    def explain_missed_probe(self, _notified, _seconds):
        return ProbeTimeout("it does not answer any more")

    def wait(self, seconds: float) -> list:
        if not self._world.traffic:
            self._world.pass_time(seconds)
        if self._world.broken:
            raise self._world.broken
        arrived, self._world.traffic = self._world.traffic, []
        return arrived


@pytest.fixture
def world():
    return World()


@pytest.fixture
def walk(world):
    """Run a listener of the bus in this world, until the time that is given."""
    inbox = inbox_with("imbus", True, catch_up_payloads=lambda told: [["everything"]])
    settings = Settings({}, "postgres", {}, {}, {})
    listener = Listener(
        settings, inbox, DEFAULT_TIMING, world.connect, world.send_probe, world, lambda: world.now
    )

    def walk(until: float):
        world.at(until, world.stop)
        listener.run()
        return listener, inbox

    walk.listener = listener
    yield walk
    inbox.close()


def states(world, walk, *times: float) -> list:
    """Walk, and return the state at each of these times."""
    seen: list = []
    for time in times:
        world.at(time, lambda: seen.append(walk.listener.status.state))
    walk(times[-1] + 0.5)
    return seen


def lose(world, error="terminated"):
    world.broken = psycopg2.OperationalError(error)


def test_it_listens_once_its_probe_has_arrived(world, walk):
    assert states(world, walk, 101.0) == [State.LISTENING]
    assert world.listens == [[PROBE_CHANNEL, "imbus"]]


def test_a_lost_session_is_replaced_within_half_a_second(world, walk):
    world.at(150.0, lambda: lose(world))
    assert states(world, walk, 151.0) == [State.LISTENING]
    (_first, second) = world.attempts
    assert second[0] - 150.0 <= 0.5
    assert walk.listener.failure_counts[Failure.LOST] == 1
    assert second[1] == 0, "the address was the right one"


def test_while_no_server_is_there_it_tries_each_second(world, walk):
    world.connect_error = PrimaryUnavailable("refused")
    assert states(world, walk, 400.0) == [State.DEAF]
    times = [time for time, _rotation in world.attempts]
    assert max(later - earlier for earlier, later in zip(times, times[1:])) <= 1.0
    assert walk.listener.failure_counts[Failure.NOT_THERE] == len(times)
    assert [rotation for _time, rotation in world.attempts] == list(range(len(times)))


def test_a_server_that_refuses_is_asked_ever_less(world, walk):
    world.connect_error = psycopg2.OperationalError("password authentication failed")
    states(world, walk, 600.0)
    times = [time for time, _rotation in world.attempts]
    assert times[-1] - times[-2] >= 15.0
    assert walk.listener.failure_counts[Failure.REFUSED] == len(times)


def test_a_probe_that_does_not_arrive_ends_the_session(world, walk):
    world.at(120.0, lambda: setattr(world, "probes_arrive", False))
    assert states(world, walk, 115.0, 141.0) == [State.LISTENING, State.DEAF]
    assert walk.listener.failure_counts[Failure.DEAF] >= 1
    assert world.attempts[1][1] == 1, "another address comes first"


def test_a_pooled_connection_that_is_away_keeps_the_session(world, walk):
    world.at(120.0, lambda: setattr(world, "pooled_error", psycopg2.OperationalError("away")))
    world.at(160.0, lambda: setattr(world, "pooled_error", None))
    assert states(world, walk, 140.0, 180.0) == [State.UNKNOWN, State.LISTENING]
    assert len(world.attempts) == 1


def test_what_was_missed_is_looked_for_once_a_probe_was_taken(world, walk):
    delivered: list = []
    world.at(150.0, lambda: lose(world))
    _listener, inbox = walk(152.0)
    inbox.poll()
    delivered += [notify.payload for notify in inbox.notifies]
    assert delivered == ["everything"]
    assert not inbox.needs_catch_up


def test_while_it_is_deaf_the_bus_looks_again_and_again(world, walk):
    world.connect_error = psycopg2.OperationalError("refused")
    rounds: list = []
    next(iter(walk.listener.inboxes)).catch_up_payloads = lambda told: (
        rounds.append(world.now) or [["all"]]
    )
    walk(200.0)
    pauses = [later - earlier for earlier, later in zip(rounds, rounds[1:])]
    assert rounds[0] - 100.0 <= 1.5
    assert min(pauses) >= 9.0 and max(pauses) <= 17.0


def test_what_arrives_reaches_the_inbox_of_its_channel(world, walk):
    message = Notify(0, "imbus", '[["db","a"]]')
    world.at(110.0, lambda: world.traffic.extend([message, Notify(0, "another", "x")]))
    listener, inbox = walk(112.0)
    inbox.poll()
    assert '[["db","a"]]' in [notify.payload for notify in inbox.notifies]
    assert listener.notification_counts == {"imbus": 1, "another": 1}


def test_one_more_channel_leaves_a_proven_session_proven(world, walk):
    """LISTEN ran in it; a probe is sent all the same."""
    other = Inbox("cron_trigger")
    world.at(112.0, lambda: setattr(world, "probes_arrive", False))
    world.at(113.0, lambda: walk.listener.add(other))
    assert states(world, walk, 111.0, 114.0, 150.0) == [
        State.LISTENING,
        State.LISTENING,
        State.DEAF,
    ]
    assert world.listens[1] == [PROBE_CHANNEL, "cron_trigger", "imbus"]
    other.close()


def test_an_inbox_that_joins_late_is_told_to_look_at_once(world, walk):
    other = inbox_with("imbus", catch_up_payloads=lambda told: [["everything"]])
    other.needs_catch_up = True
    world.at(112.0, lambda: walk.listener.add(other))
    walk(113.5)
    other.poll()
    assert [notify.payload for notify in other.notifies] == ["everything"]
    assert len(world.listens) == 1
    other.close()


def test_one_that_joins_on_another_channel_looks_once_the_session_listens_there(world, walk):
    """It joins after the channels were read, while the answer to a probe is there to be taken."""
    cron = inbox_with("cron_trigger")
    cron.needs_catch_up = True
    listener, looks = walk.listener, []
    next(iter(listener.inboxes)).needs_catch_up = False
    remind, look = listener.status.remind, cron.deliver

    def join(now):
        if world.listens and listener._prober._probe and cron not in listener.inboxes:
            listener.add(cron)
        remind(now)

    def deliver(payloads):
        looks.append(list(world.listens[-1]))
        look(payloads)

    listener.status.remind, cron.deliver = join, deliver
    listener._catch_up._uniform = min  # without the pause before it
    walk(103.0)
    assert looks == [[PROBE_CHANNEL, "cron_trigger", "imbus"]]
    cron.close()


def test_whatever_ends_it_its_followers_learn_of_it(world, walk):
    """In the gevent process, a signal's KeyboardInterrupt ends the greenlet that runs just now."""

    def interrupt():
        raise KeyboardInterrupt

    world.at(112.0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        walk(113.0)
    assert world.closed
