"""What ``buscheck`` finds out, case by case.

Without the tests of Odoo this ring would not notice that the command does not start.
"""

import contextlib
import re
import secrets
import socket
import time

import psycopg2
import pytest

from bus_alt_connection.buscheck import checks
from bus_alt_connection.buscheck.finding import Mark, advise
from bus_alt_connection.buscheck.report import format_report, report

from ...stack.pgbouncer import PgBouncer
from ...stack.postgres import Postgres
from ...stack.tls import certified
from ..conftest import settings_of


@contextlib.contextmanager
def all_well(both):
    yield {}


@contextlib.contextmanager
def pgbouncer(both):
    try:
        yield {"imdispatcher_db_port": both.pooled.port}
    finally:
        # its server connections have taken the listener's application_name
        both.pgbouncer.forget("postgres")


@contextlib.contextmanager
def standby(both):
    server = Postgres(both.folder / f"standby-{secrets.token_hex(4)}", primary=both.postgres)
    try:
        server.start()
        yield {"imdispatcher_db_port": server.port}
    finally:
        server.remove()


@contextlib.contextmanager
def another_cluster(both):
    server = Postgres(both.folder / f"other-{secrets.token_hex(4)}")
    try:
        server.start()
        server.create_role(both.direct.user, both.password)
        yield {"imdispatcher_db_port": server.port}
    finally:
        server.remove()


@contextlib.contextmanager
def pooler(both, **kwargs):
    folder = both.folder / f"pgbouncer-{secrets.token_hex(4)}"
    one = PgBouncer(folder, both.postgres, both.pgbouncer.passwords, **kwargs)
    try:
        yield {"own": {"port": one.start().port}}
    finally:
        one.stop()


@contextlib.contextmanager
def another_database(both):
    name = f"elsewhere_{secrets.token_hex(4)}"
    both.postgres.execute(f"CREATE DATABASE {name}")
    with pooler(both, aliases={"postgres": name}) as options:
        yield options


@contextlib.contextmanager
def session_pool(both):
    with pooler(both, aliases={"postgres": "postgres pool_mode=session"}) as options:
        yield options


@contextlib.contextmanager
def pooler_away(both):
    yield {"own": {"port": 1}}


@contextlib.contextmanager
def refused(both):
    yield {"imdispatcher_db_port": 1}


@contextlib.contextmanager
def unknown_name(both):
    yield {"imdispatcher_db_host": "no.such.host.invalid"}


@contextlib.contextmanager
def never_answers(both):
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield {"imdispatcher_db_port": one.getsockname()[1]}


@contextlib.contextmanager
def first_never_answers(both):
    with socket.create_server(("127.0.0.1", 0)) as one:
        ports = f"{one.getsockname()[1]},{both.direct.port}"
        yield {"imdispatcher_db_host": "127.0.0.1,127.0.0.1", "imdispatcher_db_port": ports}


@contextlib.contextmanager
def standby_first(both):
    with standby(both) as options:
        ports = f"{options['imdispatcher_db_port']},{both.direct.port}"
        yield {"imdispatcher_db_host": "127.0.0.1,127.0.0.1", "imdispatcher_db_port": ports}


@contextlib.contextmanager
def wrong_password(both):
    yield {"imdispatcher_db_password": "not-the-password"}


@contextlib.contextmanager
def wrong_sslmode(both):
    yield {"imdispatcher_db_sslmode": "require"}


@contextlib.contextmanager
def certificate_of_another_host(both):
    with certified(both.postgres, "db.example.com") as signer:
        yield {"imdispatcher_db_sslmode": "verify-full", "imdispatcher_db_sslrootcert": signer}


@contextlib.contextmanager
def certificate(both):
    with certified(both.postgres, "localhost") as signer:
        yield {
            "imdispatcher_db_host": "localhost",
            "imdispatcher_db_sslmode": "verify-full",
            "imdispatcher_db_sslrootcert": signer,
        }


@contextlib.contextmanager
def certificates_of_the_system(both):
    with certified(both.postgres, "localhost") as signer, pytest.MonkeyPatch.context() as environ:
        environ.setenv("SSL_CERT_FILE", str(signer))
        yield {"imdispatcher_db_host": "localhost", "imdispatcher_db_sslrootcert": "system"}


@contextlib.contextmanager
def password_file(both):
    """The listener's own role has its password there; Odoo's must not be sent instead."""
    both.postgres.create_role("listener", "password-of-listener", "")
    path = both.folder / "passwords"
    path.touch(0o600)
    path.write_text("*:*:*:listener:password-of-listener\n")
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("PGPASSFILE", str(path))
        environ.setenv("PGPASSWORD", both.password)
        yield {"imdispatcher_db_user": "listener"}


@contextlib.contextmanager
def odoos_role_may_not_connect(both):
    """Only the listener's may, straight to PostgreSQL."""
    both.postgres.create_role("listener", "password-of-listener", "")
    yield {
        "imdispatcher_db_user": "listener",
        "imdispatcher_db_password": "password-of-listener",
        "imdispatcher_odoo_user": "another",
    }


@contextlib.contextmanager
def role_without_connect(both):
    both.postgres.create_role("stranger", "password-of-stranger", "")
    both.postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    both.postgres.execute("GRANT CONNECT ON DATABASE postgres TO odoo")
    try:
        yield {
            "imdispatcher_db_user": "stranger",
            "imdispatcher_db_password": "password-of-stranger",
        }
    finally:
        both.postgres.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")


@contextlib.contextmanager
def not_needed(both):
    yield {"own": {"port": both.direct.port}}


CASES = [
    (all_well, True, "a NOTIFY on the pooled connection was heard at 127.0.0.1:"),
    (all_well, True, r"127.0.0.1:\d+ is a pooler that lends server connections"),
    (session_pool, True, "is a pooler that keeps sessions"),
    (not_needed, True, "is PostgreSQL itself, or a pooler that keeps sessions"),
    (certificate, True, r"TLSv1\.[23] \(sslmode=verify-full\)"),
    (odoos_role_may_not_connect, True, "• module updates and backups may fail: .*failed for user"),
    (password_file, True, "a NOTIFY on the pooled connection was heard"),
    (first_never_answers, True, "a NOTIFY on the pooled connection was heard"),
    (standby_first, True, "a NOTIFY on the pooled connection was heard"),
    (pgbouncer, False, "is a pooler, not PostgreSQL"),
    (standby, False, "is a standby, which cannot LISTEN"),
    (another_cluster, False, "db_host leads to another server"),
    (another_database, False, "db_host leads to database elsewhere"),
    (pooler_away, False, r"db_host and db_port: .*refused"),
    (refused, False, "Nothing listens there"),
    (unknown_name, False, r"host 'no\.such\.host\.invalid' cannot be resolved"),
    (never_answers, False, "no answer within 4 s"),
    (wrong_password, False, "password authentication failed"),
    (wrong_sslmode, False, "server does not support SSL"),
    (certificate_of_another_host, False, "does not match host name"),
    (role_without_connect, False, "GRANT CONNECT ON DATABASE"),
]
if psycopg2.__libpq_version__ >= 160000:
    CASES.append((certificates_of_the_system, True, r"TLSv1\.[23] \(sslmode=verify-full\)"))


@pytest.mark.parametrize(
    "case, good, says", CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_case(servers, case, good, says):
    begin = time.monotonic()
    with case(servers) as options:
        begin = time.monotonic()
        settings = settings_of(servers, **options)
        shown = report(settings, checks.run(settings))
        took = time.monotonic() - begin
    text = format_report(shown)
    assert re.search(says, text), text
    assert shown["ok"] is good, text
    assert took < 12
    assert "not-the-password" not in text
    assert "password-of-stranger" not in text
    assert servers.password not in text
    last = text.splitlines()[-1]
    assert last.startswith("Notifications arrive." if good else "Notifications do NOT arrive: ")


def test_nothing_is_set(servers):
    settings = settings_of(servers)._replace(given={})
    assert (
        "no imdispatcher_db_* setting is there" in report(settings, checks.run(settings))["verdict"]
    )


def test_room_is_a_remark(servers, listen):
    listen(servers).wait_for("listening")
    settings = settings_of(servers)
    findings = checks.run(settings)
    (room,) = [finding for finding in findings if "are in use" in finding.text]
    assert room.mark is Mark.NOTE
    assert "1 by listeners; this Odoo opens 1 for its own" in room.text


def test_it_leaves_no_session_behind(servers):
    checks.run(settings_of(servers))
    deadline = time.monotonic() + 5
    while servers.postgres.listeners() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers.postgres.listeners() == []


def test_what_to_do_about_a_missing_certificate():
    text = 'root certificate file "/ca.crt" does not exist'
    assert "imdispatcher_db_sslrootcert" in advise(text)
