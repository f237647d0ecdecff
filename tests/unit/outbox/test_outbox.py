"""What the outbox does with its session, with a clock of the test's own and no server."""

from __future__ import annotations

import psycopg2
import pytest

from bus_alt_connection.config.timing import (
    COMMIT_CONNECT_TIMEOUT,
    COMMIT_TOTAL_TIMEOUT,
    IDLE_TIMEOUT,
    NEVER,
    POOL_MODE_TTL,
)
from bus_alt_connection.outbox import outbox as outbox_module
from bus_alt_connection.outbox import pending as module
from bus_alt_connection.outbox.outbox import Outbox
from bus_alt_connection.outbox.sender import MAX_REFUSALS
from bus_alt_connection.postgres.wakeup import Stopped

LATE = object()  # instead of an error: the answer is not there in time


class World:
    """The time, and a pooler at the other end; ``script`` has what happens at each wait."""

    def __init__(self):
        self.now = 100.0
        self.script: list = []
        self.sent: list = []  # batches of statements
        self.errors: list = []  # of the next answers; None for a good one, or LATE
        self.connect_error = None
        self.connect_takes = self.answer_takes = 0.0  # seconds
        self.connects: list[float] = []
        self.limits: list[float] = []
        self.transaction_pooling = True
        self.fits = 1000  # statements in one round trip

    def close(self):
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
        self.limits.append(_arguments[1])
        if self.connect_error:
            raise self.connect_error
        self.spend(self.connect_takes, _arguments[1])
        return Session(self)

    def spend(self, seconds: float, limit: float):
        """Let the time pass that something takes, or the time that is waited for it."""
        self.now += min(seconds, limit)
        if seconds > limit:
            raise psycopg2.OperationalError(f"no answer within {limit:g} s")


class Session:
    """A session of this world."""

    closed = 0
    seconds, deadline = 10.0, NEVER

    def __init__(self, world: World):
        self.world, self.connection = world, self

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        self.closed = 1

    def another(self, seconds):
        other = self.world.connect(None, min(seconds, self.deadline - self.world.now))
        other.seconds, other.deadline = seconds, self.deadline
        return other

    def set_limits(self, seconds, wakeup, deadline=NEVER):
        self.seconds, self.deadline = seconds, deadline

    def wait_ready(self):
        left = max(0.0, self.deadline - self.world.now)
        self.world.spend(self.world.answer_takes, min(self.seconds, left))

    def send(self, statements) -> int:
        number = min(len(statements), self.world.fits)
        self.world.sent.append([query for query, _params in statements[:number]])
        return number

    def wait_for_answer(self) -> bool:
        error = self.world.errors.pop(0) if self.world.errors else None
        if error is LATE:
            return False
        try:
            self.wait_ready()
        except psycopg2.OperationalError:
            return False
        if error:
            raise error
        return True

    def is_permanent(self, error) -> bool:
        return isinstance(error, psycopg2.ProgrammingError)

    def is_alive(self, error) -> bool:
        return not isinstance(error, psycopg2.OperationalError)

    def run(self, _statement):
        self.wait_ready()
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
    made = Outbox({}, world.connect, lambda: world.now)
    made._need_thread = lambda: None
    made._wakeup = world
    return made


def put_while_away(world, outbox, *names: str):
    """Let these wait, as where the pooler is away."""
    world.connect_error = psycopg2.OperationalError("away")
    outbox._sender.close_session()
    for name in names:
        outbox.put(f"NOTIFY {name}")
    world.connect_error = None
    assert not world.sent


def test_a_commit_sends_its_own_and_needs_no_thread(world, outbox):
    for name in ("a", "b"):
        outbox.put(f"NOTIFY {name}")
        assert world.sent[-1] == [f"NOTIFY {name}"], "it has left before put returns"
        assert outbox.unconfirmed == 0
    assert len(world.connects) == 2, "the session and the second one that shows the pool mode"
    assert world.limits[0] == COMMIT_CONNECT_TIMEOUT
    assert max(world.limits) <= COMMIT_TOTAL_TIMEOUT


def test_a_late_answer_is_waited_for_elsewhere(world, outbox):
    world.errors = [LATE]
    outbox.put("NOTIFY a")
    assert outbox.unconfirmed == 1
    outbox._run()
    assert (world.sent, outbox.unconfirmed) == ([["NOTIFY a"]], 0)
    assert outbox.counts.failures == 0


def test_all_that_waits_goes_in_one_round_trip(world, outbox):
    put_while_away(world, outbox, "0", "1", "2", "1")
    outbox._run()
    assert world.sent == [["NOTIFY 0", "NOTIFY 1", "NOTIFY 2"]]
    assert outbox.unconfirmed == 0


def test_what_does_not_fit_goes_in_several(world, outbox):
    """And what was confirmed is not sent again where the next one fails."""
    put_while_away(world, outbox, *"abcde")
    world.fits = 2
    world.errors = [None, psycopg2.OperationalError("cut")]
    world.script = [None]
    outbox._run()
    notify = [[f"NOTIFY {name}" for name in names] for names in ("ab", "cd", "cd", "e")]
    assert world.sent == notify
    assert outbox.unconfirmed == 0


def test_a_session_without_use_for_a_minute_is_not_used_again(world, outbox):
    outbox.put("NOTIFY a")
    kept = outbox._sender.session
    world.now += IDLE_TIMEOUT - 1
    outbox.put("NOTIFY b")
    assert outbox._sender.session is kept
    world.now += IDLE_TIMEOUT
    outbox.put("NOTIFY c")
    assert outbox._sender.session is not kept and kept.closed


def test_a_session_that_has_ended_is_replaced_at_once(world, outbox):
    outbox.put("NOTIFY a")
    world.errors = [psycopg2.OperationalError("server closed the connection")]
    outbox.put("NOTIFY b")
    assert (outbox.unconfirmed, outbox.counts.failures) == (0, 0)


def test_in_session_mode_it_is_closed_at_once(world, outbox):
    world.transaction_pooling = False
    outbox.put("NOTIFY a")
    assert outbox._sender.session is None
    assert world.now == 100.0


def test_the_pool_mode_is_believed_for_a_while(world, outbox):
    for at in (100.0, 100.0 + IDLE_TIMEOUT + 1, 100.0 + POOL_MODE_TTL + 1):
        world.now = at
        outbox.put(f"NOTIFY {at}")
    assert len(world.connects) == 3 + 2


@pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "session"])
@pytest.mark.parametrize(
    "connect, answer", [(0.005, 0.001), (0.03, 0.005), (0.1, 0.02), (0.2, 0.04), (0.249, 0.049)]
)
def test_a_commit_waits_for_all_together_no_longer_than_that(
    world, outbox, connect, answer, transaction
):
    """It connects, sends, and sees the pool mode; a thread sees it where the time is over."""
    world.transaction_pooling = transaction
    world.connect_takes, world.answer_takes = connect, answer
    for _time in range(2):
        began = world.now
        outbox.put("NOTIFY a")
        assert world.now - began <= COMMIT_TOTAL_TIMEOUT + 1e-6
        assert world.sent.pop() == ["NOTIFY a"]
        assert (outbox.unconfirmed, outbox.counts.failures) == (0, 0)
        outbox._run()
        assert not world.sent
        assert bool(outbox._sender.session) is transaction
        if not transaction:
            before = len(world.connects)
            outbox.put("NOTIFY b")
            assert world.sent.pop() == ["NOTIFY b"]
            outbox._run()
            assert len(world.connects) == before + 1, "it is not looked at again"
        world.now += POOL_MODE_TTL


def test_a_thread_that_only_sees_the_pool_mode_says_nothing(world, outbox, caplog):
    world.connect_takes, world.answer_takes = 0.2, 0.04
    outbox.put("NOTIFY a")
    world.connect_error = psycopg2.OperationalError("away")
    outbox._run()
    assert (caplog.text, outbox.counts.failures) == ("", 0)


def test_what_fails_is_sent_again_in_order(world, outbox, caplog):
    caplog.set_level("INFO")
    world.connect_error = psycopg2.OperationalError("away")
    world.script = [None, None, lambda: setattr(world, "connect_error", None), None]
    outbox.put("NOTIFY a")
    outbox.put("NOTIFY b")
    assert len(world.connects) == 1, "no commit waits for what is known to be away"
    outbox._run()
    assert world.sent == [["NOTIFY a", "NOTIFY b"]]
    assert outbox.counts.failures >= 2
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "NOTIFY cannot be sent: away" in lines[0] and lines[1] == "NOTIFY is sent again"


def test_a_pooler_that_is_too_far_to_connect_within_a_commit_is_no_failure(world, outbox, caplog):
    """A thread connects; where that fails, too, it is said."""
    caplog.set_level("INFO")
    world.connect_takes = COMMIT_CONNECT_TIMEOUT + 0.05
    for _minute in range(4):
        outbox.put("NOTIFY a")
        assert outbox.unconfirmed == 1
        outbox._run()
        assert outbox.unconfirmed == 0
        world.now += IDLE_TIMEOUT + 1
    assert (caplog.text, outbox.counts.failures) == ("", 0)
    outbox.put("NOTIFY a")
    assert outbox.counts.failures == 0
    world.connect_error, world.script = psycopg2.OperationalError("away"), [None] * 3
    outbox._run()
    assert outbox.counts.failures > 1
    assert [one.getMessage().partition(":")[0] for one in caplog.records] == [
        "NOTIFY cannot be sent"
    ]


def test_attempts_are_never_far_apart(world, outbox):
    """Of a pooler that refuses: what waits, and what comes, leaves soon after it is back."""
    world.connect_error = psycopg2.OperationalError("no such database")
    outbox.put("NOTIFY a")
    world.script = [None] * 200
    outbox._run()
    apart = [after - before for before, after in zip(world.connects, world.connects[1:])]
    assert world.now > 100 + 60
    assert max(apart) <= 2


def test_a_statement_that_is_wrong_does_not_stop_the_others(world, outbox, caplog):
    put_while_away(world, outbox, "a", "wrong", "c")
    wrong = psycopg2.ProgrammingError("syntax error")
    world.errors = [wrong, None, wrong, None]
    outbox._run()
    assert world.sent[1:] == [["NOTIFY a"], ["NOTIFY wrong"], ["NOTIFY c"]]
    assert (outbox.unconfirmed, outbox.counts.refused) == (0, 1)
    assert caplog.text.count("NOTIFY is refused, and dropped") == 1


def test_a_refusal_of_the_pooler_s_own_is_tried_again(world, outbox, caplog):
    """With a code such as XX000, which says nothing of the statement."""
    world.errors = [psycopg2.InternalError("no server")] * 2
    world.script = [None] * 5
    outbox.put("NOTIFY a")
    outbox._run()
    assert (outbox.unconfirmed, outbox.counts.refused) == (0, 0)
    assert "dropped" not in caplog.text


def test_one_that_is_refused_again_and_again_while_others_are_not_is_dropped(world, outbox):
    world.errors = [psycopg2.InternalError("no server")] * MAX_REFUSALS
    world.script = [None] * 20
    outbox.put("NOTIFY a")
    outbox._run()
    assert (outbox.unconfirmed, outbox.counts.refused) == (0, 1)


def test_an_equal_one_that_is_committed_while_the_first_is_sent_is_sent_as_well():
    pending, sent = module.Pending(), []

    def send(statements):
        sent.extend(statements)
        pending.add("NOTIFY a", None)  # another thread commits
        return len(statements)

    pending.add("NOTIFY a", None)
    assert pending.send_some(send, 10)
    assert not pending.confirm(), "one waits"
    assert pending.send_some(lambda statements: sent.extend(statements) or 1, 10)
    assert pending.confirm() and sent == [("NOTIFY a", None)] * 2


def test_what_does_not_fit_is_sent_next_and_in_its_order():
    pending, sent = module.Pending(), []
    for name in "abc":
        pending.add(name, None)

    def send(statements):
        sent.append(statements[0][0])
        return 1

    while pending.send_some(send, 10):
        pending.confirm()
    assert sent == ["a", "b", "c"]


def test_a_commit_survives_that_no_file_descriptor_is_to_be_had(world, monkeypatch):
    def refused():
        raise OSError(24, "Too many open files")

    world.connect_error = psycopg2.OperationalError("away")
    monkeypatch.setattr(outbox_module, "Wakeup", refused)
    outbox = Outbox({}, world.connect, lambda: world.now)
    outbox.put("NOTIFY a")
    assert outbox.unconfirmed == 1
    world.connect_error = None


def test_each_outage_in_which_some_are_dropped_is_logged(world, outbox, caplog, monkeypatch):
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    for _outage in range(2):
        put_while_away(world, outbox, *"abcd")
        world.sent.clear()
        outbox._run()
        world.sent.clear()
    assert outbox.counts.dropped == 4
    assert caplog.text.count("the oldest are dropped") == 2
    assert caplog.text.count("2 NOTIFY were dropped") == 2
