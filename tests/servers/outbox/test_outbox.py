"""A commit's NOTIFY leaves at once or waits in the outbox; no commit waits for long."""

import contextlib
import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import gevent
import psycopg2
import psycopg2.extensions
import pytest

from bus_alt_connection.config import timing
from bus_alt_connection.outbox import pending as module
from bus_alt_connection.outbox.outbox import Outbox

from ...stack.odoo import CHECKOUT, ROLE
from ...stack.pgbouncer import PgBouncer
from ...stack.postgres import Postgres
from ...stack.process import free_port, wait_until
from ...stack.tcp_proxy import TcpProxy
from ..conftest import settings_of

NOTIFY = "SELECT pg_notify('imbus', %s)"


class Subscriber(threading.Thread):
    """Listens straight at PostgreSQL; ``heard`` has (payload, time)."""

    def __init__(self, postgres):
        super().__init__(daemon=True)
        self.heard = []
        self._connection = postgres.connect()
        self._connection.cursor().execute("LISTEN imbus")
        self._ended = False
        self.start()

    def run(self):
        while not self._ended:
            if select.select([self._connection], [], [], 0.05)[0]:
                self._connection.poll()
                for one in self._connection.notifies:
                    self.heard.append((one.payload, time.monotonic()))
                self._connection.notifies.clear()

    def payloads(self):
        return [payload for payload, _time in self.heard if payload != "warm"]

    def wait_for(self, payload: str, timeout: float = 10.0):
        wait_until(lambda: payload in self.payloads(), f"{payload} is heard", timeout, 0.005)

    def close(self):
        self._ended = True
        self.join()
        self._connection.close()


@pytest.fixture
def subscriber(servers):
    subscriber = Subscriber(servers.postgres)
    yield subscriber
    subscriber.close()


@pytest.fixture
def make():
    """A function that makes an outbox of these servers."""
    with contextlib.ExitStack() as stack:

        def make(servers, **own):
            outbox = Outbox(settings_of(servers, own=own).pooled)
            stack.callback(outbox.close, 0)
            return outbox

        yield make


@pytest.fixture
def outbox(servers, make):
    """With a session that is kept open."""
    return warm(make(servers))


def warm(outbox):
    put(outbox, "warm")
    wait_until(lambda: not outbox.unconfirmed, "all is sent", 10, 0.001)
    wait_until(lambda: outbox._sender.session, "its session is kept", 30, 0.005)
    return outbox


def put(outbox, payload: str, query: str = NOTIFY) -> float:
    """Put a NOTIFY and return how long that took."""
    begin = time.monotonic()
    outbox.put(query, (payload,))
    return time.monotonic() - begin


@contextlib.contextmanager
def pooler(both, **kwargs):
    folder = both.folder / f"pgbouncer-{secrets.token_hex(4)}"
    one = PgBouncer(folder, both.postgres, both.pgbouncer.passwords, **kwargs)
    try:
        yield one.start()
    finally:
        one.stop()


def clients(pgbouncer) -> int:
    """How many connections to the system database the pooler has from us."""
    rows = pgbouncer.admin("SHOW CLIENTS")
    return sum(row["database"] == "postgres" and row["user"] == ROLE for row in rows)


def backends(postgres) -> int:
    ((count,),) = postgres.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND datname = 'postgres'", [ROLE]
    )
    return count


# --- the usual case ---------------------------------------------------------------------


def test_order(outbox, subscriber):
    payloads = [f"message {i}" for i in range(200)]
    for payload in payloads:
        put(outbox, payload)
    subscriber.wait_for(payloads[-1])
    assert subscriber.payloads() == payloads


def test_the_session_stays_open_behind_a_pooler_that_lends(servers, make, subscriber):
    outbox = warm(make(servers))
    before = servers.pgbouncer.admin("SHOW CLIENTS")
    for i in range(5):
        put(outbox, f"message {i}")
        wait_until(lambda: not outbox.unconfirmed, "all is sent", 5, 0.001)
    after = servers.pgbouncer.admin("SHOW CLIENTS")

    def mine(rows):
        return {row["ptr"] for row in rows if row["database"] == "postgres"}

    assert mine(before) == mine(after)
    assert len(mine(after)) == 1


def test_where_sessions_are_kept_it_is_closed_at_once(servers, make, subscriber):
    with pooler(servers, aliases={"postgres": "postgres pool_mode=session"}) as one:
        outbox = make(servers, port=one.port)
        for i in range(3):
            put(outbox, f"message {i}")
            wait_until(lambda: not outbox.unconfirmed, "all is sent", 5, 0.001)
            wait_until(lambda: clients(one) == 0, "it is closed", 1.5)
    subscriber.wait_for("message 2")


def test_straight_to_postgresql_it_is_closed_at_once(servers, make, subscriber):
    outbox = make(servers, port=servers.direct.port)
    before = backends(servers.postgres)
    put(outbox, "straight")
    wait_until(lambda: not outbox.unconfirmed, "all is sent", 5, 0.001)
    wait_until(lambda: backends(servers.postgres) <= before, "it is closed", 1.5)
    subscriber.wait_for("straight")


def test_a_pooler_that_changes_its_mode(servers, make, monkeypatch):
    """What was seen once is not believed for ever."""
    monkeypatch.setattr(timing, "POOL_MODE_TTL", 0)
    with pooler(servers, aliases={"postgres": "postgres pool_mode=transaction"}) as one:
        outbox = warm(make(servers, port=one.port))
        one.edit("pool_mode=transaction", "pool_mode=session")
        put(outbox, "again")
        wait_until(lambda: clients(one) == 0, "it is closed", 5)


def test_one_server_connection_is_enough(servers, make, subscriber):
    with pooler(servers, aliases={"postgres": "postgres pool_size=1"}) as one:
        outbox = warm(make(servers, port=one.port))
        put(outbox, "one")
        wait_until(lambda: not outbox.unconfirmed, "all is sent", 5, 0.001)
    subscriber.wait_for("one")


# --- the pooler is away, or slow --------------------------------------------------------


def paused(one, seconds):
    one.admin("PAUSE postgres")
    time.sleep(seconds)
    one.admin("RESUME postgres")
    return time.monotonic()


def restarted(one, seconds):
    one.stop()
    time.sleep(seconds)
    one.start()
    return time.monotonic()


@pytest.mark.parametrize(
    "happens, seconds",
    [
        (paused, 4),
        (restarted, 0),
        (restarted, 3),
        pytest.param(restarted, 10, marks=pytest.mark.slow),
        pytest.param(paused, 15, marks=pytest.mark.slow),
    ],
)
def test_nobody_waits_and_all_arrive(servers, make, subscriber, caplog, happens, seconds):
    caplog.set_level(logging.INFO, "odoo.addons.bus_alt_connection.outbox")
    with pooler(servers) as one:
        outbox = warm(make(servers, port=one.port))
        took, payloads, over = [], [], threading.Event()

        def commits():
            while not over.wait(0.02) or len(payloads) < 20:
                payloads.append(f"message {len(payloads)}")
                took.append(put(outbox, payloads[-1]))

        thread = threading.Thread(target=commits)
        thread.start()
        back = happens(one, seconds)
        over.set()
        thread.join()
        subscriber.wait_for(payloads[-1])
        # or the end of the pooler would be one more trouble
        wait_until(lambda: not outbox.unconfirmed, "all is sent", 5, 0.001)
        assert max(took) <= 0.5  # stock waits as long as the pooler is away
        last = max(at for _payload, at in subscriber.heard)
        assert last - back <= 2
        assert list(dict.fromkeys(subscriber.payloads())) == payloads
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) <= 1
    if warnings:
        # said once it is confirmed, maybe a moment after it was heard
        said = lambda: sum(one.levelno == logging.INFO for one in caplog.records)  # noqa: E731
        wait_until(said, "it says that it works")
        assert said() == 1
    assert servers.password not in caplog.text


def test_equal_ones_are_sent_once_and_all_in_one_round_trip(servers, make, subscriber):
    with pooler(servers) as one:
        outbox = warm(make(servers, port=one.port))
        one.stop()
        for _time in range(5):
            for i in range(20):
                put(outbox, f"{i}.", "SELECT pg_notify('imbus', %s || txid_current())")
        assert outbox.unconfirmed == 20
        one.start()
        wait_until(lambda: not outbox.unconfirmed, "all is sent", 5, 0.001)
        wait_until(lambda: len(subscriber.payloads()) >= 20, "all are heard")
    messages, transactions = zip(*(payload.split(".") for payload in subscriber.payloads()))
    assert messages == tuple(map(str, range(20)))
    assert len(set(transactions)) == 1


def test_too_many_wait(servers, make, caplog, monkeypatch, subscriber):
    monkeypatch.setattr(module, "MAX_PENDING", 10)
    with pooler(servers) as one:
        outbox = make(servers, port=one.port)
        one.stop()
        for i in range(15):
            put(outbox, f"message {i}")
        assert outbox.unconfirmed == 10
        one.start()
        subscriber.wait_for("message 14")
    assert subscriber.payloads() == [f"message {i}" for i in range(5, 15)]
    assert caplog.text.count("the oldest are dropped") == 1


def test_a_packet_that_nobody_confirms(outbox):
    """The kernel finds a dead path in 2 s; a pooler that is paused confirms them."""
    with socket.socket(fileno=os.dup(outbox._sender.session.connection.fileno())) as one:
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000


def test_a_far_pooler(servers, make, subscriber, caplog):
    """A commit has no time to see the pool mode; the connection is kept nevertheless."""
    relay = TcpProxy((servers.pooled.host, servers.pooled.port))
    relay.delay = 0.012
    try:
        outbox = make(servers, port=relay.port)
        assert put(outbox, "connects") <= 0.4
        wait_until(lambda: outbox._sender.session, "its session is kept", 5, 0.005)
        wait_until(lambda: not outbox._has_thread(), "the thread has ended", 5, 0.005)
        kept = outbox._sender.session
        put(outbox, "uses it")
        subscriber.wait_for("uses it", 2)
        assert outbox._sender.session is kept
    finally:
        relay.close()
    assert outbox.counts.failures == 0 and "NOTIFY" not in caplog.text


@pytest.mark.slow
def test_a_firewall_has_forgotten_the_session(servers, make, subscriber):
    """It takes the packets, as the one that drops them does not: only an answer is missing."""
    relay = TcpProxy((servers.pooled.host, servers.pooled.port))
    try:
        outbox = warm(make(servers, port=relay.port))
        relay.forget()
        assert put(outbox, "into nowhere") <= 0.5
        assert put(outbox, "behind it") <= 0.5
        subscriber.wait_for("behind it", timing.ANSWER_TIMEOUT + 3)
    finally:
        relay.close()
    assert subscriber.payloads() == ["into nowhere", "behind it"]


def test_five_processes_share_three_places(servers, make, subscriber):
    """In session mode each waits its turn, and nobody holds what others need."""
    aliases = {"postgres": "postgres pool_mode=session pool_size=3"}
    with pooler(servers, aliases=aliases, more="query_wait_timeout = 8") as one:
        senders = [make(servers, port=one.port) for _i in range(5)]
        took = []
        for turn in range(5):
            for number, outbox in enumerate(senders):
                took.append(put(outbox, f"{turn} of {number}"))
            time.sleep(0.3)
        wait_until(lambda: len(subscriber.payloads()) == 25, "all are heard", 5)
        assert max(took) <= 0.5  # stock waits as long as the pooler is away
        assert sum(outbox.counts.failures for outbox in senders) == 0
        wait_until(lambda: clients(one) == 0, "nothing is held", 2)


def test_of_two_poolers_the_first_does_not_answer(servers, make, subscriber, monkeypatch):
    """A node that is gone without a word."""
    monkeypatch.setattr(timing, "ANSWER_TIMEOUT", 1.0)
    pooled = settings_of(servers).pooled
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", int(pooled["port"])))
        silent.listen(5)
        outbox = make(servers, host=f"127.0.0.2,{pooled['host']}")
        put(outbox, "by the other")
        subscriber.wait_for("by the other")


def test_no_thread_is_to_be_had_for_a_moment(servers, make, subscriber):
    outbox = make(servers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused_thread)
        put(outbox, "without a thread")
    put(outbox, "with one")
    subscriber.wait_for("without a thread")


def refused_thread(_thread):
    raise RuntimeError("can't start new thread")


def test_no_descriptor_is_to_be_had_for_a_moment(servers, make, subscriber, monkeypatch):
    outbox = make(servers)
    errors = [OSError(24, "Too many open files")] * 2
    own = outbox._sender._connect

    def connect(*args):
        if errors:
            raise errors.pop()
        return own(*args)

    monkeypatch.setattr(outbox._sender, "_connect", connect)
    put(outbox, "before")
    subscriber.wait_for("before")
    put(outbox, "afterwards")
    subscriber.wait_for("afterwards")
    assert not errors


def test_a_refused_statement_does_not_stop_the_others(servers, make, subscriber, caplog):
    with pooler(servers) as one:
        outbox = warm(make(servers, port=one.port))
        # one alone, on the session that is kept
        put(outbox, "bad", "SELECT no_such_function('imbus', %s)")
        put(outbox, "first")
        subscriber.wait_for("first")
        # one among others
        one.stop()
        put(outbox, "second")
        put(outbox, "worse", "SELECT no_such_function('imbus', %s)")
        outbox.put(NOTIFY, ("too", "many"))
        put(outbox, "third")
        one.start()
        subscriber.wait_for("third")
    assert subscriber.payloads() == ["first", "second", "third"]
    assert caplog.text.count("NOTIFY is refused, and dropped") == 3


def test_a_code_of_the_pooler_s_own_is_no_fault_of_the_statement(servers, make, subscriber):
    """Supavisor and pgpool refuse with XX000."""
    name = f"refusals_{secrets.token_hex(4)}"
    servers.postgres.execute(
        f"CREATE SEQUENCE {name}; GRANT ALL ON {name} TO PUBLIC;"
        f"CREATE FUNCTION {name}(payload text) RETURNS void LANGUAGE plpgsql AS $$BEGIN"
        f" IF nextval('{name}') < 3 THEN RAISE 'no server' USING ERRCODE = 'XX000'; END IF;"
        " PERFORM pg_notify('imbus', payload); END$$"
    )
    outbox = warm(make(servers))
    put(outbox, "at last", f"SELECT {name}(%s)")
    subscriber.wait_for("at last", 5)


class TracedCursor(psycopg2.extensions.cursor):
    """Adds a comment to the text of a statement, as tracers do."""

    def execute(self, query, params=None):
        text = query.as_string(self) if hasattr(query, "as_string") else str(query)
        return super().execute(text.rstrip("; ") + " /*traceparent='00-1-1-01'*/", params)


class TracedConnection(psycopg2.extensions.connection):
    def cursor(self, *args, **kwargs):
        return super().cursor(*args, cursor_factory=TracedCursor, **kwargs)


def test_a_tracer_that_adds_comments(servers, make, subscriber, monkeypatch, caplog):
    own = psycopg2.connect
    traced = {"connection_factory": TracedConnection}
    monkeypatch.setattr(psycopg2, "connect", lambda **how: own(**how, **traced))
    with pooler(servers) as one:
        outbox = make(servers, port=one.port)
        put(outbox, "first")
        subscriber.wait_for("first")
        one.stop()
        put(outbox, "second")
        put(outbox, "third")
        one.start()
        subscriber.wait_for("third")
    assert subscriber.payloads() == ["first", "second", "third"]
    assert "dropped" not in caplog.text


def test_many_wait_for_a_slow_link(servers, make, subscriber, monkeypatch):
    """As 10,000 at half a megabyte a second, for which 10 s would not do."""
    monkeypatch.setattr(timing, "ANSWER_TIMEOUT", 1.0)
    relay = TcpProxy((servers.pooled.host, servers.pooled.port))
    try:
        outbox = warm(make(servers, port=relay.port))
        relay.close()
        for i in range(2000):
            put(outbox, f"message {i:4} {'x' * 200}")
        relay.open(rate=200_000)
        wait_until(lambda: not outbox.unconfirmed, "all is sent", 60)
    finally:
        relay.close()
    wait_until(lambda: len(set(subscriber.payloads())) == 2000, "all are heard", 5)


def test_a_standby_may_be_promoted(servers, make, subscriber):
    """What it refuses is no fault of the statement."""
    standby = Postgres(servers.folder / "standby", primary=servers.postgres)
    try:
        with pooler(servers) as one:
            standby.start()
            outbox = warm(make(servers, port=one.port))
            primary = PgBouncer._server(servers.postgres)
            one.edit(primary, PgBouncer._server(standby))
            one.forget("postgres")
            put(outbox, "later")
            wait_until(lambda: outbox.counts.failures > 1, "it is refused", 5)
            one.edit(PgBouncer._server(standby), primary)
            one.forget("postgres")
            subscriber.wait_for("later")
    finally:
        standby.remove()


# --- the process ends, or forks ---------------------------------------------------------

# as Odoo's own gevent process does
GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import psycopg2.extensions, psycopg2.extras
psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
"""

SCRIPT = """
import json, os, signal, sys, time
from bus_alt_connection.outbox.outbox import Outbox
outbox = Outbox(json.loads(os.environ["PARAMETERS"]))
def put(text):
    outbox.put("SELECT pg_notify('imbus', %s)", (text,))
def warm():
    put("warm")
    while not outbox._sender.session:
        time.sleep(0.01)
def sockets():
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if name.startswith("socket:"):
            names.append(name)
    return set(names)
"""


def script(servers, text: str, gevent: bool = False, **own) -> float:
    """Run this in a Python of its own, and return its seconds."""
    begin = time.monotonic()
    patch = GEVENT if gevent else ""
    environ = {**os.environ, "PARAMETERS": json.dumps(settings_of(servers, own=own).pooled)}
    done = subprocess.run(
        [sys.executable, "-c", patch + SCRIPT + text],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode in (0, -signal.SIGKILL, -signal.SIGTERM), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return time.monotonic() - begin


@pytest.mark.parametrize("gevent", [False, True])
def test_killed_right_after_the_commit(servers, subscriber, gevent):
    for i in range(5):
        script(servers, f"warm(); put('message {i}'); os.kill(os.getpid(), signal.SIGKILL)", gevent)
        subscriber.wait_for(f"message {i}", 2)


FIRST_AND_LAST = {
    "_exit": "put('the only one'); os._exit(0)",
    "SIGTERM": "put('the only one'); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
    "fork": "pid = os.fork()\nif not pid:\n    put('the only one')\n    os._exit(0)\nos.wait()",
    "multiprocessing": (
        "import multiprocessing\n"
        "fork = multiprocessing.get_context('fork')\n"
        "child = fork.Process(target=put, args=['the only one'])\n"
        "child.start(); child.join()"
    ),
    "pool": (
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    pool.map(put, ['the only one'])"
    ),
}


@pytest.mark.parametrize("end", FIRST_AND_LAST)
def test_a_process_that_ends_right_after_its_first_commit(servers, subscriber, end):
    """Without ``atexit``."""
    script(servers, FIRST_AND_LAST[end])
    subscriber.wait_for("the only one", 2)


WHILE_IT_ENDS = {
    "atexit": "import atexit\natexit._run_exitfuncs()\nput('late')\nos._exit(0)",
    "thread": (
        "import threading\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    put('late')\n"
        "threading.Thread(target=late).start()"
    ),
    "executor": (
        "import concurrent.futures, threading\n"
        "def late():\n"
        "    time.sleep(0.3)\n"
        "    put('late')\n"
        "concurrent.futures.ThreadPoolExecutor().submit(late)"
    ),
}


@pytest.mark.parametrize("begin", ["", "warm()\n"])
@pytest.mark.parametrize("how", WHILE_IT_ENDS)
def test_a_commit_while_the_interpreter_ends(servers, subscriber, how, begin):
    script(servers, begin + WHILE_IT_ENDS[how])
    subscriber.wait_for("late", 2)


def test_a_commit_needs_no_thread_and_little_memory(servers, subscriber):
    """A thread reserves 72 MB, and ``limit_memory_soft`` counts what is reserved."""
    text = """
import threading
def reserved():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
import psycopg2
psycopg2.connect(**json.loads(os.environ["PARAMETERS"])).close()  # as Odoo does
before = reserved()
for i in range(50):
    put("message %d" % i)
assert threading.active_count() == 1
assert reserved() - before < 10e6, reserved() - before
"""
    script(servers, text)
    script(servers, text, host="localhost")
    subscriber.wait_for("message 49", 2)


def test_nothing_is_left_in_a_process_that_forks(servers, subscriber):
    text = """
import threading
before = sockets()
put("of the master")
assert threading.active_count() == 1
pid = os.fork()
left = sockets() - before
if not pid:
    os._exit(bool(left))
assert os.waitpid(pid, 0)[1] == 0
put("of the master again")
"""
    script(servers, text)
    subscriber.wait_for("of the master again", 2)


OLD_GEVENT = pytest.mark.skipif(
    gevent.__version__.startswith("20."), reason="with Python 3.9 it crashes where it ends"
)


@pytest.mark.parametrize("gevent", [False, pytest.param(True, marks=OLD_GEVENT)])
@pytest.mark.parametrize("begin", ["", "warm(); "])
def test_the_end_sends_what_is_left(servers, subscriber, begin, gevent):
    script(servers, begin + "put('first'); put('last')", gevent)
    subscriber.wait_for("last", 2)
    assert subscriber.payloads() == ["first", "last"]


def test_the_end_does_not_wait_for_ever(servers):
    assert script(servers, "put('last')", port=free_port()) < 2 + 4


def test_a_forked_process_has_its_own(servers, subscriber):
    text = """
warm()
pid = os.fork()
put("of both")
put("of the child" if not pid else "of the parent")
if pid:
    os.waitpid(pid, 0)
    put("of the parent again")
"""
    script(servers, text)
    subscriber.wait_for("of the parent again", 2)
    payloads = subscriber.payloads()
    assert sorted(payloads) == sorted(
        ["of both", "of both", "of the child", "of the parent", "of the parent again"]
    )


def test_nobody_sees_the_password(servers, make, caplog):
    caplog.set_level(logging.DEBUG)
    outbox = make(servers, password="not-the-password")
    put(outbox, "never")
    wait_until(lambda: outbox.counts.failures, "it fails", 5)
    assert "authentication failed" in caplog.text
    assert "not-the-password" not in caplog.text
