"""Module loading works in a session of its own, and leaves nothing behind on pooled connections."""

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import xmlrpc.client

import psycopg2
import pytest
import requests

from ..stack import series
from ..stack.deployment import running_deployment
from ..stack.odoo import CHECKOUT, ROLE
from ..stack.pgbouncer import PgBouncer
from ..stack.process import wait_until
from ..stack.users import LoadingSessions

ADMIN = "admin"

# the module cannot be imported here: some series of Odoo warn when they are
LOADING = (CHECKOUT / "bus_alt_connection" / "integration" / "loading.py").read_text()
MAX_LOADS = int(re.search(r"^MAX_LOADS = (\d+)$", LOADING, re.M)[1])


@pytest.fixture(scope="module")
def whole():
    """Servers whose pooled connections nobody else spoils."""
    with running_deployment() as own:
        yield own


def left_behind(whole, database: str) -> int:
    """Count PgBouncer's connections to PostgreSQL on which somebody left ``lock_timeout``."""
    backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = %s"
    ((number,),) = whole.postgres.execute(backends, [database, ROLE])
    left = {}
    with contextlib.ExitStack() as stack:
        for _connection in range(number):  # each holds another one
            connection = psycopg2.connect(**whole.pooled._asdict(), dbname=database)
            stack.callback(connection.close)
            cursor = connection.cursor()
            cursor.execute("SELECT pg_backend_pid(), current_setting('lock_timeout')")
            backend, timeout = cursor.fetchone()
            left[backend] = timeout
    assert left
    return sum(timeout != "0" for timeout in left.values())


def states(whole, database: str) -> list:
    query = "SELECT name, state, latest_version FROM ir_module_module WHERE state <> 'uninstalled'"
    return sorted(whole.postgres.execute(query, dbname=database))


def upgrade(odoo, module: str):
    """What the Apps page does."""
    common = xmlrpc.client.ServerProxy(f"{odoo.url}/xmlrpc/2/common")
    uid = common.authenticate(odoo.database, ADMIN, ADMIN, {})
    models = xmlrpc.client.ServerProxy(f"{odoo.url}/xmlrpc/2/object", allow_none=True)

    def call(*args):
        return models.execute_kw(odoo.database, uid, ADMIN, "ir.module.module", *args)

    ids = call("search", [[("name", "=", module)]])
    call("button_immediate_upgrade", [ids])


@pytest.mark.skipif(series.NUMBER < 15, reason="before 15.0 a load sets nothing")
@pytest.mark.parametrize(
    "addon",
    [pytest.param(False, marks=pytest.mark.slow), pytest.param(True, marks=pytest.mark.smoke)],
    ids=["stock", "addon"],
)
def test_no_lock_timeout_is_left_on_pooled_connections(whole, addon):
    with whole.odoo(addon=addon, options=whole.direct_settings, workers=4, start=False) as odoo:
        left = 0
        for _start in range(1 if addon else 3):
            odoo.start()
            left = left or left_behind(whole, odoo.database)
            odoo.stop()
        odoo.run("-u", "bus", "--stop-after-init")
        left = left or left_behind(whole, odoo.database)
    assert (left == 0) is addon


@pytest.mark.smoke
@pytest.mark.parametrize(
    "how, workers",
    [
        ("command line", 0),
        ("Apps page", 0),
        pytest.param("Apps page", 2, marks=pytest.mark.slow),
    ],
    ids=["command line", "threaded", "prefork"],
)
def test_an_update_has_a_session_as_odoos_own_role(whole, how, workers):
    whole.postgres.create_role("listener", "password-of-listener", "")
    own = {"imdispatcher_db_user": "listener", "imdispatcher_db_password": "password-of-listener"}
    by_hand = how == "command line"
    options = {**whole.direct_settings, **own}
    with whole.odoo(options=options, workers=workers, start=not by_hand) as odoo:
        before = states(whole, odoo.database)
        with LoadingSessions(whole) as watched:
            if by_hand:
                odoo.run("-u", "bus", "--stop-after-init")
            else:
                upgrade(odoo, "bus")
        assert watched.roles == {ROLE}
        assert states(whole, odoo.database) == before
        ended = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%-loading'"
        wait_until(lambda: whole.postgres.execute(ended) == [(0,)], "the session is closed")


def test_without_the_direct_connection_pages_are_served_and_nothing_is_updated(whole):
    options = {**whole.direct_settings, "imdispatcher_db_port": 1}
    with whole.odoo(options=options, workers=2) as odoo:
        assert requests.get(f"{odoo.url}/web/login", timeout=60).ok
        before = states(whole, odoo.database)
        with pytest.raises(
            xmlrpc.client.Fault, match="cannot be updated now: the direct connection"
        ):
            upgrade(odoo, "bus")
        assert states(whole, odoo.database) == before
        assert requests.get(f"{odoo.url}/web/login", timeout=60).ok
        assert left_behind(whole, odoo.database) == 0


# --- 20.0 ---------------------------------------------------------------------------------


def replay(odoo, seconds: float, loaders: int, visitors: int, forks: int = 0) -> list:
    """Let processes load registries at once, as 20.0 does; return what they say of each load."""
    environ = {**odoo.environ, **{k: v for k, v in os.environ.items() if k.startswith("BUS_ALT_")}}
    argv = [sys.executable, "-m", "tests.stack.replay", odoo.conf, odoo.database, str(seconds)]
    kinds = ["yes"] * loaders + ["no"] * visitors
    outs = [odoo.folder / f"replay-{i}" for i in range(len(kinds))]
    processes = []
    try:
        for kind, out in zip(kinds, outs):
            with out.open("w") as stdout, out.with_suffix(".log").open("w") as stderr:
                process = subprocess.Popen(
                    [*argv, kind, str(forks)],
                    cwd=CHECKOUT,
                    env=environ,
                    stdout=stdout,
                    stderr=stderr,
                )
            processes.append(process)
        for process, out in zip(processes, outs):
            assert process.wait(seconds + 120) == 0, out.with_suffix(".log").read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [json.loads(line) for out in outs for line in out.read_text().splitlines()]


def overlaps(loads: list) -> int:
    """Count the loads that ran beside one that had to be alone."""
    done = sorted((load for load in loads if "end" in load), key=lambda load: load["begin"])
    found = 0
    for i, one in enumerate(done):
        for other in done[i + 1 :]:
            if other["begin"] >= one["end"]:
                break
            found += one["update"] or other["update"]
    return found


SECONDS = float(os.environ.get("BUS_ALT_REPLAY", "6"))
PROCESSES = (8, 6) if "BUS_ALT_REPLAY" in os.environ else (4, 3)  # that load, and that visit


@pytest.mark.parametrize(
    "way", ["stock", "addon", pytest.param("straight", marks=pytest.mark.slow)]
)
def test_registry_locks_of_20_exclude(whole, way):
    """BUS_ALT_REPLAY=300 is what the documentation's figures come from."""
    path = whole.direct if way == "straight" else whole.pooled
    with whole.odoo(path, addon=way == "addon", options=whole.direct_settings, start=False) as odoo:
        loads = replay(odoo, SECONDS, *PROCESSES)
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        ((left,),) = whole.postgres.execute(locks)
    failed = [load["error"] for load in loads if "error" in load]
    found = overlaps(loads)
    sys.stdout.write(
        f"{way}: {len(loads)} loads, {found} overlaps, {len(failed)} failed, {left} left\n"
    )
    assert len(loads) > 10
    if way == "stock":
        assert found or failed or left
    else:
        assert (found, failed, left) == (0, [], 0)


def test_registry_locks_of_20_without_the_direct_connection(whole):
    """A plain load succeeds and leaves nothing; an update says why it does not."""
    options = {**whole.direct_settings, "imdispatcher_db_port": 1}
    with whole.odoo(options=options, start=False) as odoo:
        loads = replay(odoo, 3, loaders=2, visitors=2)
        assert left_behind(whole, odoo.database) == 0
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert whole.postgres.execute(locks) == [(0,)]
    plain = [load for load in loads if not load["update"]]
    updates = [load for load in loads if load["update"]]
    assert plain and not any("error" in load for load in plain)
    assert updates and all("cannot be updated now" in load.get("error", "") for load in updates)


def test_the_workers_of_a_server_load_a_few_at_a_time(whole):
    with whole.odoo(options=whole.direct_settings, start=False) as odoo, LoadingSessions(
        whole
    ) as watched:
        loads = replay(odoo, 3, loaders=1, visitors=0, forks=8)
    assert len({load["pid"] for load in loads}) == 9
    assert not any("error" in load for load in loads)
    at_once = [
        sum(other["begin"] <= one["begin"] < other["end"] for other in loads) for one in loads
    ]
    assert 1 < max(at_once) <= MAX_LOADS
    # those whose client has gone take a moment to end
    assert watched.most <= 2 * MAX_LOADS


def test_an_update_needs_nothing_of_the_system_database(whole):
    """Odoo's own role may not even connect there: the pooler gives it another one."""
    whole.postgres.create_role("listener", "password-of-listener", "")
    own = {"imdispatcher_db_user": "listener", "imdispatcher_db_password": "password-of-listener"}
    pooler = PgBouncer(
        whole.folder / "limited",
        whole.postgres,
        whole.pgbouncer.passwords,
        aliases={"postgres": "postgres user=listener password=password-of-listener"},
    )
    whole.postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        whole.postgres.execute("GRANT CONNECT ON DATABASE postgres TO listener")
        path = whole.pooled._replace(port=pooler.start().port)
        with whole.odoo(path, options={**whole.direct_settings, **own}, start=False) as odoo:
            with LoadingSessions(whole) as watched:
                odoo.run("-u", "bus", "--stop-after-init")
            assert watched.roles == {ROLE}
    finally:
        pooler.stop()
        whole.postgres.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")


@pytest.mark.slow
@pytest.mark.skipif(not series.HAS_DB_COMMAND, reason="this series has no command module")
def test_the_command_module_with_postgresql_named(whole):
    """It loads no addon: the documentation says to name PostgreSQL in its environment."""
    environ = {"PGHOST": whole.direct.host, "PGPORT": str(whole.direct.port)}
    with whole.odoo(options=whole.direct_settings, environ=environ, start=False) as odoo:
        python, program, *conf = odoo.argv()
        command = [python, program, "module", "upgrade", *conf, "-d", odoo.database, "bus"]
        # the pooler keeps its own
        backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        count = functools.partial(whole.postgres.execute, backends, [odoo.database])
        subprocess.run(command, env=odoo.environ, check=True)
        wait_until(lambda: count() == [(0,)], "none went through the pooler", 5)
        unnamed = {name: text for name, text in odoo.environ.items() if name not in environ}
        subprocess.run(command, env=unnamed, check=True)
        assert count() > [(0,)]
