"""What an operator sees: the command, the log and /bus_alt_connection/ready, case by case."""

import contextlib
import json
import re
import secrets
import socket

import pytest

from .stack import series
from .stack.pgbouncer import PgBouncer
from .stack.postgres import Postgres
from .stack.process import wait_until
from .stack.tls import certified


@contextlib.contextmanager
def all_well(whole):
    yield whole.direct


@contextlib.contextmanager
def pgbouncer(whole):
    try:
        yield {
            "imdispatcher_db_host": whole.pooled.host,
            "imdispatcher_db_port": whole.pooled.port,
        }
    finally:
        # its server connections have taken the listener's application_name
        whole.pgbouncer.forget("postgres")


@contextlib.contextmanager
def standby(whole):
    server = Postgres(whole.folder / f"standby-{secrets.token_hex(4)}", primary=whole.postgres)
    try:
        server.start()
        yield {**whole.direct, "imdispatcher_db_port": server.port}
    finally:
        server.remove()


@contextlib.contextmanager
def another_cluster(whole):
    server = Postgres(whole.folder / f"other-{secrets.token_hex(4)}")
    try:
        server.start()
        server.create_role(whole.straight.user, whole.password)
        yield {**whole.direct, "imdispatcher_db_port": server.port}
    finally:
        server.remove()


@contextlib.contextmanager
def another_database(whole):
    """The pooler leads to another one than it is asked for."""
    name = f"elsewhere_{secrets.token_hex(4)}"
    whole.postgres.execute(f"CREATE DATABASE {name}")
    pooler = PgBouncer(
        whole.folder / f"pgbouncer-{name}",
        whole.postgres,
        whole.pgbouncer.passwords,
        aliases={"postgres": name},
    )
    try:
        pooler.start()
        yield {**whole.direct, "db_port": pooler.port}
    finally:
        pooler.stop()


@contextlib.contextmanager
def refused(whole):
    yield {**whole.direct, "imdispatcher_db_port": 1}


@contextlib.contextmanager
def never_answers(whole):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(
        ("127.0.0.1", 0)
    ) as two:
        yield {
            "imdispatcher_db_host": "127.0.0.1,127.0.0.1",
            "imdispatcher_db_port": f"{one.getsockname()[1]},{two.getsockname()[1]}",
        }


@contextlib.contextmanager
def wrong_password(whole):
    yield {**whole.direct, "imdispatcher_db_password": "not-the-password"}


@contextlib.contextmanager
def wrong_sslmode(whole):
    yield {**whole.direct, "imdispatcher_db_sslmode": "require"}


@contextlib.contextmanager
def certificate_of_another_host(whole):
    with certified(whole.postgres, "db.example.com") as signer:
        dsn = f"sslmode=verify-full sslrootcert={signer}"
        yield {**whole.direct, "imdispatcher_db_dsn": dsn}


@contextlib.contextmanager
def role_without_connect(whole):
    whole.postgres.create_role("stranger", "password-of-stranger", "")
    whole.postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    whole.postgres.execute("GRANT CONNECT ON DATABASE postgres TO odoo")
    try:
        yield {
            **whole.direct,
            "imdispatcher_db_user": "stranger",
            "imdispatcher_db_password": "password-of-stranger",
        }
    finally:
        whole.postgres.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")


@contextlib.contextmanager
def not_needed(whole):
    yield {**whole.direct, "db_port": whole.straight.port}


WELL = "imbus: listening at 127.0.0.1:"

CASES = [
    (all_well, 0, "a NOTIFY on the normal path was heard", WELL),
    (pgbouncer, 1, "is a pooler, not PostgreSQL", "is a pooler, not PostgreSQL"),
    (standby, 1, "is a standby, which cannot LISTEN", "is a standby, which cannot LISTEN"),
    (another_cluster, 1, "db_host leads to another server", "that is another server"),
    (another_database, 1, "the pooler leads to database elsewhere", "or another database"),
    (refused, 1, "Nothing listens there", "imbus: deaf: .*refused"),
    (never_answers, 1, "no answer within 4 s", "imbus: deaf: .*no answer within 10 s"),
    (wrong_password, 1, "password authentication failed", "password authentication failed"),
    (wrong_sslmode, 1, "server does not support SSL", "server does not support SSL"),
    (certificate_of_another_host, 1, "does not match host name", "does not match host name"),
    (role_without_connect, 1, "GRANT CONNECT ON DATABASE", "permission denied for database"),
    (not_needed, 0, "this addon is not needed", WELL),
]


@pytest.mark.parametrize(
    "case, status, says, logs", CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_case(deployment, case, status, says, logs):
    with case(deployment) as options, deployment.odoo(options=options) as odoo:
        done = odoo.buscheck()
        assert (done.returncode, says in done.stdout) == (status, True), done.stdout + done.stderr
        wait_until(lambda: re.search(logs, odoo.log()), logs, 40)
        errors = [line for line in odoo.log().splitlines() if " ERROR " in line]
        assert [bool(re.search(logs, line)) for line in errors] == ([True] if status else [])
        answer = odoo.ready()
        assert answer.status_code == (503 if status else 200)
        (listener,) = answer.json()["listeners"]
        assert listener["state"] == ("deaf" if status else "listening")
        assert "not-the-password" not in done.stdout + done.stderr + odoo.log()
        assert "password-of-stranger" not in done.stdout + done.stderr + odoo.log()


def test_a_bad_setting(deployment):
    options = {**deployment.direct, "imdispatcher_db_port": "abc"}
    with deployment.odoo(start=False, options=options) as odoo:
        done = odoo.buscheck()
        assert done.returncode == 2
        (line,) = done.stdout.splitlines()
        assert "bad setting imdispatcher_db_port (from imdispatcher_db_port in odoo.conf)" in line


def test_nothing_set(deployment):
    with deployment.odoo(start=False) as odoo:
        done = odoo.buscheck()
        assert done.returncode == 1
        assert "no imdispatcher_db_* setting is there" in done.stdout


def test_for_machines_it_is_json_without_a_password(deployment):
    options = {**deployment.direct, "max_cron_threads": 2}
    environ = {"IMDISPATCHER_DB_HOST": "localhost"}
    with deployment.odoo(start=False, options=options, environ=environ) as odoo:
        done = odoo.buscheck("--json")
        report = json.loads(done.stdout)
        assert report["ok"] is True
        rows = {row["name"]: row for row in report["settings"]}
        assert rows["host"]["value"] == "localhost"
        assert rows["host"]["source"] == "environment variable IMDISPATCHER_DB_HOST"
        assert rows["password"]["value"] == "set"
        assert deployment.password not in done.stdout + done.stderr
        (room,) = [row["text"] for row in report["checks"] if row["section"] == "Room"]
        assert f"opens {3 if series.CRON_LISTENS else 1} direct connections" in room


def test_a_pgbouncer_that_lets_odoo_look(deployment):
    """The recommended alternative, and where its edge is."""
    pooler = PgBouncer(
        deployment.folder / "sessions",
        deployment.postgres,
        deployment.pgbouncer.passwords,
        more="stats_users = odoo\n",
        aliases={"postgres": "postgres pool_mode=session pool_size=2"},
    )
    options = {**deployment.direct, "db_port": pooler.port, "max_cron_threads": 2}
    try:
        pooler.start()
        with deployment.odoo(start=False, options=options) as odoo:
            done = odoo.buscheck()
            assert "is a pooler that keeps sessions (session mode)" in done.stdout
            assert "PgBouncer: for postgres pool_mode=session, pool_size=2" in done.stdout
            fills = "listeners would fill that pool" in done.stdout
            assert fills is series.CRON_LISTENS
            assert done.returncode == (1 if fills else 0)
    finally:
        pooler.stop()


def test_tls_is_shown(deployment):
    with certified(deployment.postgres, "localhost") as signer:
        dsn = f"sslmode=verify-full sslrootcert={signer}"
        options = {
            **deployment.direct,
            "imdispatcher_db_host": "localhost",
            "imdispatcher_db_dsn": dsn,
        }
        with deployment.odoo(start=False, options=options) as odoo:
            done = odoo.buscheck()
            assert re.search(r"TLSv1\.[23], the server's certificate and its name", done.stdout)
            assert done.returncode == 0


def test_the_command_with_odoo_rc(deployment):
    with deployment.odoo(start=False, options=deployment.direct) as odoo:
        done = odoo.buscheck(rc=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Notifications arrive." in done.stdout
