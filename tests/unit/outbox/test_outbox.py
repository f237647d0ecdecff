"""What the outbox does with its session, with a clock of the test's own and no server."""

from __future__ import annotations

import psycopg2
import pytest

from bus_alt_connection.config.timing import IDLE_TIMEOUT, POOL_MODE_TTL
from bus_alt_connection.outbox.outbox import Outbox
from bus_alt_connection.postgres.wakeup import Stopped


class World:
    """The time, and a pooler at the other end; ``script`` has what happens at each wait."""

    def __init__(self):
        self.now = 100.0
        self.script: list = []
        self.sent: list = []  # batches of statements
        self.errors: list = []  # of the next answers; None for a good one
        self.connect_error = None
        self.connects: list[float] = []
        self.transaction_pooling = True
        self.stopped = False

    def wake(self):
        pass

    def wait(self, seconds: float, connection=None) -> bool:
        """Let the time pass, or what the script has next happen."""
        if not self.script:
            raise Stopped
        action = self.script.pop(0)
        if action is None:
            self.now += seconds
            return False
        return bool(action())

    def connect(self, *_arguments):
        self.connects.append(self.now)
        if self.connect_error:
            raise self.connect_error
        return Session(self)


class Session:
    """A session of this world."""

    closed = 0

    def __init__(self, world: World):
        self.world, self.connection = world, self

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.closed = 1

    def send(self, statements):
        self.world.sent.append([query for query, _params in statements])

    def wait_ready(self):
        error = self.world.errors.pop(0) if self.world.errors else None
        if error:
            raise error

    def is_permanent(self, error) -> bool:
        return isinstance(error, psycopg2.ProgrammingError)

    def run(self, _statement):
        # in transaction mode all get the same server connection in turn
        return (1 if self.world.transaction_pooling else id(self),)

    def get_backend_pid(self) -> int:
        return -1  # as a pooler invents it


@pytest.fixture
def world():
    return World()


@pytest.fixture
def outbox(world):
    """An outbox whose thread is the test's own."""
    made = Outbox({}, world.connect, world.connect, lambda: world, lambda: world.now)
    made._start_thread = lambda: None
    return made


def test_all_that_waits_goes_in_one_round_trip(world, outbox):
    for i in range(3):
        outbox.put(f"NOTIFY {i}")
    outbox.put("NOTIFY 1")
    outbox._run()
    assert world.sent == [["NOTIFY 0", "NOTIFY 1", "NOTIFY 2"]]
    assert outbox.unconfirmed == 0


def test_an_idle_session_sends_at_once_and_the_answer_is_taken(world, outbox):
    def put():
        outbox.put("NOTIFY later")
        assert world.sent[-1] == ["NOTIFY later"], "it has left before put returns"
        assert outbox.unconfirmed == 1
        return True

    world.script = [put, lambda: outbox.unconfirmed and False]
    outbox.put("NOTIFY first")
    outbox._run()
    assert outbox.unconfirmed == 0
    assert len(world.connects) == 2, "the session and the second one that shows the pool mode"


def test_a_session_without_use_is_closed(world, outbox):
    world.script = [None] * int(IDLE_TIMEOUT + 2)
    outbox.put("NOTIFY a")
    outbox._run()
    assert world.now >= 100.0 + IDLE_TIMEOUT
    assert not world.script or len(world.script) <= 2


def test_in_session_mode_it_is_closed_at_once(world, outbox):
    world.transaction_pooling = False
    outbox.put("NOTIFY a")
    outbox._run()
    assert outbox._lent_session is None
    assert world.now == 100.0


def test_the_pool_mode_is_believed_for_a_while(world, outbox):
    for at in (100.0, 200.0, 100.0 + POOL_MODE_TTL + 1):
        world.now = at
        outbox.put(f"NOTIFY {at}")
        outbox._run()
    assert len(world.connects) == 3 + 2


def test_what_fails_is_sent_again_in_order(world, outbox, caplog):
    caplog.set_level("INFO")
    world.connect_error = psycopg2.OperationalError("away")
    world.script = [None, None, lambda: setattr(world, "connect_error", None), None]
    outbox.put("NOTIFY a")
    outbox.put("NOTIFY b")
    outbox._run()
    assert world.sent == [["NOTIFY a", "NOTIFY b"]]
    assert outbox.failures >= 2
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "NOTIFY cannot be sent: away" in lines[0] and lines[1] == "NOTIFY is sent again"


def test_a_statement_that_is_wrong_does_not_stop_the_others(world, outbox, caplog):
    wrong = psycopg2.ProgrammingError("syntax error")
    world.errors = [wrong, None, wrong, None]
    for name in ("a", "wrong", "c"):
        outbox.put(f"NOTIFY {name}")
    outbox._run()
    assert world.sent[1:] == [["NOTIFY a"], ["NOTIFY wrong"], ["NOTIFY c"]]
    assert outbox.unconfirmed == 0
    assert caplog.text.count("NOTIFY is refused, and dropped") == 1
