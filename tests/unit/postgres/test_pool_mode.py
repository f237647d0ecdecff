"""For how long a pooler's mode is believed, with a clock of the test's own and no server."""

import psycopg2
import pytest

from bus_alt_connection.config.timing import NEVER, POOL_MODE_RETRY, POOL_MODE_TTL
from bus_alt_connection.postgres.pool_mode import PoolMode


class Session:
    """A session with a pooler; all get one server connection in turn, or each has its own."""

    deadline = NEVER

    def __init__(self, pooler, backend):
        self.connection, self._pooler, self._backend = self, pooler, backend

    def another(self, _seconds):
        return self._pooler.connect()

    def run(self, _statement):
        self._pooler.answers += 1
        if self._pooler.answers == self._pooler.late:
            raise psycopg2.OperationalError("no answer within 0.05 s")
        return (self._backend,)

    def get_backend_pid(self):
        return -1

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass


class Pooler:
    """Opens sessions, or refuses them."""

    def __init__(self):
        self.now, self.error, self.backends, self.connects = 0.0, None, [1], 0
        self.answers = 0
        self.late = self.refused = None  # which answer, which session

    def connect(self):
        self.connects += 1
        if self.error or self.connects == self.refused:
            raise self.error or psycopg2.OperationalError("no answer within 0.25 s")
        return Session(self, self.backends[self.connects % len(self.backends)])


@pytest.fixture
def pooler():
    return Pooler()


@pytest.fixture
def ask(pooler):
    mode = PoolMode(lambda: pooler.now)
    return lambda: mode.is_transaction(Session(pooler, 1))


def test_an_answer_is_believed_for_ten_minutes(pooler, ask):
    assert ask() and pooler.connects == 1
    pooler.now += POOL_MODE_TTL - 1
    assert ask() and pooler.connects == 1
    pooler.now += 1
    assert ask() and pooler.connects == 2


def test_session_mode_is_believed_as_long(pooler, ask):
    pooler.backends = [2, 3]
    assert not ask()
    asked = pooler.connects
    pooler.now += POOL_MODE_TTL - 1
    assert not ask() and pooler.connects == asked


def test_a_pooler_that_was_slow_once_is_asked_again_soon(pooler, ask):
    pooler.error = psycopg2.OperationalError("no answer within 0.25 s")
    assert not ask()
    pooler.error = None
    assert not ask(), "not at once: each commit would wait for it"
    pooler.now += POOL_MODE_RETRY
    assert ask()


@pytest.mark.parametrize("late", [1, 2, 5])
def test_one_late_answer_is_not_taken_for_session_mode(pooler, ask, late):
    pooler.late = late
    assert not ask()
    pooler.now += POOL_MODE_RETRY
    assert ask()


def test_where_a_third_session_is_not_to_be_had_it_is_not_known(pooler, ask):
    """Two may be with two poolers behind one address."""
    pooler.backends, pooler.refused = [2], 2
    assert not ask()
    pooler.backends = [1]
    pooler.now += POOL_MODE_RETRY
    assert ask()


def test_where_a_commit_had_no_time_for_it_a_thread_asks_at_once(pooler):
    mode, hurried = PoolMode(lambda: pooler.now), Session(pooler, 1)
    hurried.deadline, pooler.late = 0.3, 2
    assert mode.is_transaction(hurried) is None
    pooler.late = None
    assert mode.is_transaction(Session(pooler, 1)) is True
    assert mode.is_transaction(hurried) is True
