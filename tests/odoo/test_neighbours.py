"""Other server-wide addons replace the functions of Odoo that this one does, before or after."""

from __future__ import annotations

import pytest

from ..stack import neighbours, series
from ..stack.odoo import CHECKOUT, ROLE
from ..stack.process import Process, wait_until
from ..stack.users import LoadingSessions
from .conftest import running

CLASS = "Application" if series.NUMBER >= 16 else "Root"

# what instruments WSGI applications puts there: a class, its method, or the application itself
CLASS_BY_OBJECT = f"""
import odoo.http
class Wrapped:
    __slots__ = ("inner",)
    def __init__(self, inner):
        self.inner = inner
    def __call__(self, *args):
        return self.inner(*args)
odoo.http.{CLASS} = Wrapped(odoo.http.{CLASS})
"""
CLASS_BY_PROXY = f"""
import odoo.http
class Proxy:
    def __init__(self, inner):
        object.__setattr__(self, "_inner", inner)
    __class__ = property(lambda self: type(self._inner))
    def __getattr__(self, name):
        return getattr(self._inner, name)
    def __call__(self, *args):
        return self._inner(*args)
odoo.http.{CLASS} = Proxy(odoo.http.{CLASS})
"""
METHOD = f"""
import odoo.http
own = odoo.http.{CLASS}.__call__
def wrapped(self, environ, start_response):
    return own(self, environ, start_response)
odoo.http.{CLASS}.__call__ = wrapped
"""
ROOT = """
import odoo.http
class Middleware:
    def __init__(self, inner):
        self.inner = inner
    def __getattr__(self, name):
        return getattr(self.inner, name)
    def __call__(self, *args):
        return self.inner(*args)
odoo.http.root = Middleware(odoo.http.root)
"""
KINDS = {
    "class by object": CLASS_BY_OBJECT,
    "class by proxy": CLASS_BY_PROXY,
    "method": METHOD,
    "root": ROOT,
    "root and class": ROOT + CLASS_BY_OBJECT,
}
OWN = "bus_alt_connection"
START = "bus_alt_connection: bus_alt_connection "  # the line that says that it is loaded
ASK = "print(ask().status_code)"


def in_order(order: str, name: str) -> list[str]:
    return [name, OWN] if order == "before" else [OWN, name]


def errors(done) -> list[str]:
    """What went wrong, but for the settings, which lead nowhere."""
    lines = done.stderr.splitlines()
    return [line for line in lines if " ERROR " in line and "deaf" not in line]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_there_whatever_wraps_the_application(tmp_path, kind, order):
    name = neighbours.addon(tmp_path, "neighbour", KINDS[kind])
    done = neighbours.load(tmp_path, in_order(order, name), ASK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("200", "503"), done.stderr
    assert not errors(done), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_a_set_does_not_matter(tmp_path, seed):
    """Up to 18.0 ``server_wide_modules`` is a set."""
    names = [
        neighbours.addon(tmp_path, f"neighbour_{i}", text)
        for i, text in enumerate([CLASS_BY_OBJECT, METHOD, ROOT])
    ]
    done = neighbours.load(tmp_path, [*names, OWN], ASK, PYTHONHASHSEED=str(seed))
    assert done.stdout.strip() in ("200", "503"), done.stderr


def test_what_cannot_be_replaced_is_one_line_and_stays(tmp_path):
    name = neighbours.addon(
        tmp_path, "neighbour", f"import odoo.http\ndel odoo.http.{CLASS}.__call__"
    )
    done = neighbours.load(tmp_path, [name, OWN], "print('goes on')")
    assert (done.returncode, done.stdout.strip()) == (0, "goes on"), done.stderr
    lines = [line for line in done.stderr.splitlines() if f"odoo.http.{CLASS}.__call__" in line]
    assert len(lines) == 1, done.stderr
    assert "/bus_alt_connection/ready" in lines[0]
    assert "Root" not in done.stderr or CLASS == "Root"


# as odoo/sql_db.py does it, but through no function of ours
REPLACED_CONNECT = """
import odoo.sql_db
def db_connect(to, *args, **kwargs):
    if odoo.sql_db._Pool is None:
        odoo.sql_db._Pool = odoo.sql_db.ConnectionPool(16)
    name, info = odoo.sql_db.connection_info_for(to)
    return odoo.sql_db.Connection(odoo.sql_db._Pool, name, info)
odoo.sql_db.db_connect = db_connect
"""
WRAPPED_CONNECT = """
import odoo.sql_db
own = odoo.sql_db.db_connect
def db_connect(*args, **kwargs):
    return own(*args, **kwargs)
odoo.sql_db.db_connect = db_connect
"""


def with_neighbour(deployment, folder, order: str, post_load: str, **options) -> dict:
    """Options of an Odoo server that loads an addon with this code, too."""
    name = neighbours.addon(folder, "neighbour", post_load)
    modules = ",".join([series.SERVER_WIDE, *in_order(order, name)])
    settings = {**deployment.direct_settings, "server_wide_modules": modules, **options}
    return {"options": settings, "addons_path": f"{series.ADDONS},{CHECKOUT},{folder}"}


@pytest.mark.parametrize("order", ["before", "after"])
def test_db_connect_is_wrapped_by_another_addon(deployment, tmp_path, order):
    options = with_neighbour(deployment, tmp_path, order, WRAPPED_CONNECT, max_cron_threads=1)
    with running(deployment, **options) as site:
        assert site.deliver(5) == 5
        assert site.odoo.ready().status_code == 200
        if series.CRON_LISTENS:
            assert site.starts(10)
        with LoadingSessions(deployment) as watched:
            site.odoo.run("-u", "bus", "--stop-after-init", "--no-http")
        assert watched.roles == {ROLE}
        assert "went t" not in site.odoo.log()


@pytest.mark.skipif(series.NUMBER < 17, reason="--load has no order: who is last is luck")
def test_db_connect_is_replaced_by_another_addon(deployment, tmp_path):
    """Updates have their session all the same; of what has not, the log tells."""
    options = with_neighbour(deployment, tmp_path, "after", REPLACED_CONNECT)
    with running(deployment, **options) as site:
        site.deliver(1, timeout=2)
        site.says("LISTEN imbus went to an ordinary connection")
        assert "NOTIFY imbus went through an ordinary connection" in site.sender.log.read_text()
        if series.NUMBER >= 15:
            with LoadingSessions(deployment) as watched:
                site.odoo.run("-u", "bus", "--stop-after-init", "--no-http")
            assert watched.roles == {ROLE}


# as Odoo's bus does it, in a function of its own
LISTENER = """
import select, threading
import odoo, odoo.sql_db
def listen():
    with odoo.sql_db.db_connect({database!r}).cursor() as cr:
        cr.execute("LISTEN {channel}")
        cr.commit()
        connection = cr._cnx
        print("begins", flush=True)
        while True:
            if select.select([connection], [], [], 60)[0]:
                connection.poll()
                while connection.notifies:
                    print("arrived", connection.notifies.pop().payload, flush=True)
threading.Thread(target=listen, daemon=True).start()
"""


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("database, channel", [("postgres", "hot_test"), ("postgres", "imbus")])
def test_an_addon_that_listens_by_itself(deployment, tmp_path, order, database, channel):
    """Behind a pooler, too; and Odoo's bus is ready, whatever it listens on."""
    if order == "after" and series.NUMBER < 17:
        pytest.skip("--load has no order: it may connect before this addon is there")
    post_load = LISTENER.format(database=database, channel=channel)
    if order == "before":  # it connects once all are loaded
        post_load = post_load.replace(
            "def listen():", "def listen():\n    import time\n    time.sleep(3)"
        )
    options = with_neighbour(deployment, tmp_path, order, post_load)
    with running(deployment, **options) as site, deployment.pooled.connected("postgres") as sender:
        site.says("begins")
        cursor = sender.cursor()
        for i in range(20):
            cursor.execute("SELECT pg_notify(%s, %s)", [channel, f'["number {i}"]'])
            site.deliver(1)  # others use the pooler's connections meanwhile
        site.says("number 19")
        assert site.odoo.log().count('arrived ["number ') == 20
        assert site.odoo.ready().status_code == 200
        assert "LISTEN" not in site.odoo.log()


def test_one_that_listens_elsewhere_is_told(deployment, tmp_path):
    post_load = LISTENER.replace(
        'cr.execute("LISTEN {channel}")', 'run = cr.execute; run(" ".join(["LISTEN", "elsewhere"]))'
    ).format(database="postgres")
    # up to 16.0 this addon may be loaded after it
    post_load = post_load.replace("def listen():", "def listen():\n    import time; time.sleep(3)")
    options = with_neighbour(deployment, tmp_path, "after", post_load)
    with running(deployment, **options) as site:
        site.says("LISTEN elsewhere of another addon went to a pooled connection")
        assert site.odoo.ready().status_code == 200
    options = with_neighbour(deployment, tmp_path / "plain", "after", post_load)
    with running(deployment, deployment.direct, **options) as site:
        site.says("begins")
        assert "went to" not in site.odoo.log()


def test_a_wsgi_server_of_others_has_no_listener_until_it_is_needed(tmp_path):
    """As ``odoo-wsgi.example.py`` of Odoo under gunicorn."""
    # 1.1.0 had begun one within 0.3 s
    code = f"{ASK}\nimport threading, time\ntime.sleep(2)\nprint(threading.enumerate())"
    done = neighbours.load(tmp_path, [OWN], code)
    assert done.returncode == 0, done.stderr
    assert START in done.stderr
    assert "listener" not in done.stdout


COUNT = "SELECT count(*) FROM pg_stat_activity"


def test_a_gevent_process_by_itself_says_that_it_starts(deployment, prefork):
    assert prefork.odoo.log().count(START) == 1, "that of a prefork server does not"
    with deployment.odoo(options=deployment.direct_settings, start=False) as odoo:
        python, program, *conf = odoo.argv()
        process = Process(odoo.folder / "gevent.log")
        process.start([python, program, "gevent", *conf], env=odoo.environ, cwd=odoo.folder)
        try:
            wait_until(lambda: START in process.text(), "it says so")
        finally:
            process.stop()


@pytest.mark.slow
@pytest.mark.skipif(series.NUMBER != 19, reason="the test of Odoo's bus is that of 19.0")
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "direct"])
def test_odoo_s_own_test_of_the_bus(deployment, pooled):
    """It listens by itself."""
    db = deployment.pooled if pooled else deployment.direct
    with deployment.odoo(db, options=deployment.direct_settings, start=False) as odoo:
        tags = ["--test-tags", "/bus:NotifyTests", "-u", "bus"]
        done = odoo.run(*tags, "--stop-after-init", "--no-http", check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert START in done.stderr
        assert "0 failed, 0 error(s)" in done.stderr
        assert " ERROR " not in done.stderr


@pytest.mark.slow
def test_a_log_handler_that_waits_for_the_pooler(deployment):
    """As ``log_db`` does while the pooler is paused: the listener goes on."""
    with deployment.odoo(options=deployment.direct_settings, start=False) as odoo:
        with odoo.conf.open("a") as conf:
            conf.write(f"log_db = {odoo.database}\nlog_db_level = info\n")
        odoo.start()
        wait_until(lambda: "imbus: listening" in odoo.log(), "it listens")
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        deployment.pgbouncer.admin(f"PAUSE {odoo.database}")
        try:
            deployment.postgres.execute(f"{end} WHERE application_name LIKE 'odoo-%-listener'")
            there = f"{COUNT} WHERE application_name LIKE 'odoo-%-listener'"
            wait_until(lambda: deployment.postgres.execute(there) > [(0,)], "it is back", 3)
            wait_until(lambda: odoo.ready().status_code == 200, "it hears", 3)
        finally:
            deployment.pgbouncer.admin(f"RESUME {odoo.database}")
