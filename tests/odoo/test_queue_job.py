"""OCA's queue_job beside the addon: its runner gets sessions of its own."""

import contextlib
import time

import psycopg2
import pytest

from ..stack import series
from ..stack.deployment import running_deployment
from ..stack.odoo import CHECKOUT, ROLE, Sender
from ..stack.process import wait_until
from ..stack.queue_job import job_is_done, wait_for_runner
from ..stack.wheels import QUEUE_JOB, unpacked

if series.NUMBER != 19:
    pytest.skip("queue_job is tried with Odoo 19.0", allow_module_level=True)

AFTER = f"{series.SERVER_WIDE},bus_alt_connection,queue_job"
BEFORE = f"{series.SERVER_WIDE},queue_job,bus_alt_connection"
STOCK = f"{series.SERVER_WIDE},queue_job"
LOST = 10  # seconds; the runner waits 5 after an error, and 5 when it starts
SAYS = "queue_job's runner connects to"


@pytest.fixture(scope="module")
def whole():
    """Servers with a database that has queue_job."""
    with running_deployment("bus,queue_job", others=unpacked(*QUEUE_JOB)) as own:
        yield own


@contextlib.contextmanager
def jobs(whole, loaded: str, options: dict | None = None, section: dict | None = None, **more):
    """A server that loads these modules, and somebody who makes jobs.

    :param section: queue_job's own in odoo.conf
    """
    options = {"server_wide_modules": loaded, **(options or {})}
    with whole.odoo(options=options, start=False, **more) as odoo:
        if section:
            lines = [f"{name} = {text}" for name, text in section.items()]
            with odoo.conf.open("a") as conf:
                conf.write("\n".join(["[queue_job]", *lines, ""]))
        odoo.start()
        with contextlib.closing(Sender(odoo)) as sender:
            wait_for_runner(odoo)
            yield odoo, sender


def done(whole, odoo, sender, seconds: float) -> bool:
    """Make a job, and tell whether it is done within so many seconds."""
    return job_is_done(whole.postgres, odoo, sender, seconds)


def sessions(whole, odoo) -> list:
    """Return backend and role of the runner's direct sessions with the server's database."""
    query = (
        "SELECT pid, usename FROM pg_stat_activity"
        " WHERE datname = %s AND application_name LIKE '%%-jobrunner'"
    )
    return whole.postgres.execute(query, [odoo.database])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_stock_jobs_stay_pending(whole, workers):
    with jobs(whole, STOCK, addon=False, workers=workers) as (odoo, sender):
        assert not any(done(whole, odoo, sender, 5) for _job in range(3))


@pytest.mark.parametrize(
    ("loaded", "workers"), [(AFTER, 0), pytest.param(BEFORE, 2, marks=pytest.mark.slow)]
)
def test_jobs_are_done_also_after_the_runner_has_lost_its_session(whole, loaded, workers):
    whole.postgres.create_role("listener", "password-of-listener", "")
    own = {"imdispatcher_db_user": "listener", "imdispatcher_db_password": "password-of-listener"}
    options = {**whole.direct_settings, **own}
    with jobs(whole, loaded, options=options, workers=workers) as (odoo, sender):
        place = f"{whole.direct.host}:{whole.direct.port}"
        assert odoo.log().count(f"{SAYS} {place}, as imdispatcher_db_* say") == 1
        assert done(whole, odoo, sender, 5)
        for _kill in range(3):
            ((backend, role),) = sessions(whole, odoo)
            assert role == ROLE
            whole.postgres.execute("SELECT pg_terminate_backend(%s)", [backend])
            begin = time.monotonic()
            assert done(whole, odoo, sender, LOST)
            print(f"done {time.monotonic() - begin:.1f} s after its session was killed")
        assert f"{SAYS} {place}, as imdispatcher_db_* say" in odoo.buscheck().stdout


@pytest.mark.parametrize(
    "place", [pytest.param("environment", marks=pytest.mark.slow), "odoo.conf"]
)
def test_what_is_set_for_the_runner_counts(whole, place):
    own = {"jobrunner_db_host": "localhost", "jobrunner_db_port": str(whole.direct.port)}
    environ = {f"ODOO_QUEUE_JOB_{name.upper()}": text for name, text in own.items()}
    more = {"environ": environ} if place == "environment" else {"section": own}
    with jobs(whole, BEFORE, options=whole.direct_settings, **more) as (odoo, sender):
        line = f"{SAYS} localhost:{whole.direct.port}, as its own settings (jobrunner_db_*) say"
        assert line in odoo.log()
        assert done(whole, odoo, sender, 5)
        assert not sessions(whole, odoo)
        assert line in odoo.buscheck().stdout


def test_where_it_is_not_loaded_server_wide_nothing_is_said_of_it(whole):
    with whole.odoo(options=whole.direct_settings) as odoo:
        assert SAYS not in odoo.log()
        assert "bus_alt_connection found no" not in odoo.log()
        assert SAYS not in odoo.buscheck().stdout


NEEDS_MORE = "import a_library_that_nobody_has"
NOT_FOUND = "was not found in addons_path"
NOT_IMPORTED = "cannot be imported: No module named 'a_library_that_nobody_has'"


@pytest.mark.parametrize(
    ("text", "why", "loaded"),
    [
        (None, NOT_FOUND, AFTER),
        pytest.param(None, NOT_FOUND, BEFORE, marks=pytest.mark.slow),
        pytest.param(NEEDS_MORE, NOT_IMPORTED, AFTER, marks=pytest.mark.slow),
        (NEEDS_MORE, NOT_IMPORTED, BEFORE),
    ],
)
def test_where_it_cannot_be_imported_nothing_is_claimed(whole, tmp_path, loaded, text, why):
    if text is not None:
        addon = tmp_path / "queue_job"
        addon.mkdir()
        (addon / "__init__.py").write_text(text)
        (addon / "__manifest__.py").write_text("{'name': 'Job Queue'}")
    options = {
        **whole.direct_settings,
        "server_wide_modules": loaded,
        "addons_path": f"{series.ADDONS},{CHECKOUT},{tmp_path}",
    }
    line = f"queue_job is in server_wide_modules, but {why}: nothing is done for queue_job"
    with whole.odoo(options=options, start=False) as odoo:
        odoo.launch()  # its database needs queue_job: pages are not served
        wait_until(lambda: "HTTP service (werkzeug) running" in odoo.log(), "it runs")
        checked = odoo.buscheck()
        assert odoo.log().count(line) == 1
        for said in (odoo.log(), checked.stdout):
            assert SAYS not in said
            assert "bus_alt_connection found no" not in said
        assert f"• {line}" in checked.stdout
        assert checked.returncode == 0, checked.stdout


LOCK = 2293787760715711918  # PG_ADVISORY_LOCK_ID of queue_job's runner


@pytest.mark.slow
def test_a_runner_waits_for_the_lock_of_another(whole):
    """Which a runner behind the pooler has left there, before the addon came."""
    ready = "queue job runner ready for db"
    options = {"server_wide_modules": BEFORE, **whole.direct_settings}
    with whole.odoo(options=options, start=False) as odoo:
        with contextlib.closing(whole.postgres.connect(odoo.database)) as other:
            other.cursor().execute("SELECT pg_advisory_lock(%s)", [LOCK])
            odoo.start()
            time.sleep(LOST)
            assert ready not in odoo.log()
        wait_until(lambda: ready in odoo.log(), ready)
        assert sessions(whole, odoo), "it holds the lock in a direct session now"


def test_reconnect_ends_a_lock_that_was_left(whole):
    """PgBouncer alone: what the page tells to run does what it says."""
    left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    with whole.odoo(start=False) as odoo:
        pooled = dict(zip(("host", "port", "user", "password"), whole.pooled))
        with contextlib.closing(psycopg2.connect(dbname=odoo.database, **pooled)) as runner:
            runner.autocommit = True
            runner.cursor().execute("SELECT pg_advisory_lock(%s)", [LOCK])
        assert whole.postgres.execute(left) == [(1,)]
        whole.pgbouncer.admin("RECONNECT")
        wait_until(lambda: whole.postgres.execute(left) == [(0,)], "the lock is gone")
