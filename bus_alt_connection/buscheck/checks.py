# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Will notifications arrive, and if not, why?

It starts the listener that the server would start, and waits for its verdict.
"""

from __future__ import annotations

import time
from typing import Collection, Mapping

import psycopg2

from ..config.parameters import Settings
from ..config.settings import AUTO
from ..config.timing import CHECK_PROBE_TIMEOUT, CHECK_TIMEOUT, CHECK_TOTAL_TIMEOUT, Timing
from ..config.values import DB_PREFIX
from ..listener.inbox import Inbox
from ..listener.listener import Listener
from ..listener.session import StandbyError
from ..listener.status import State
from ..postgres.hosts import PrimaryUnavailable, resolve_hosts
from ..postgres.pool_mode import BACKEND_PID_SQL
from ..postgres.session import Session, one_line
from .databases import check_database, check_role, is_lent, try_auto
from .finding import NAME_POSTGRESQL, Finding, Mark, advise

TRANSACTION_POOLER = "is a pooler that lends server connections: a LISTEN does not survive there"
SESSION_POOLER = (
    "is a pooler that keeps sessions: a LISTEN survives there, this addon is not needed"
)
# a pooler that passes on PostgreSQL's own backend ids cannot be told from it: pgpool, pgagroal
NO_POOLER_SEEN = (
    "is PostgreSQL itself, or a pooler that keeps sessions: a LISTEN survives there, this addon is"
    " not needed"
)

NEEDED = 1  # direct connections, for all processes of this Odoo

MIXED_POOLER = (
    "is a pooler that keeps sessions for {}, but lends server connections for {}: backups, module"
    " updates and queue_job need this addon"
)
POOLED_ADVICE = "Check Odoo's own db_host, db_port, db_user and db_password."

USED_CONNECTIONS_SQL = """
    SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int, count(*),
        count(*) FILTER (WHERE application_name LIKE '%-listener')
    FROM pg_stat_activity WHERE datname IS NOT NULL
"""


def run(settings: Settings, databases: Collection[str] = ()) -> list[Finding]:
    """Return what was found.

    :param databases: of Odoo's own, that are looked at
    """
    try:
        findings, needs_direct = _check_pooled(settings, databases)
    except psycopg2.Error as error:
        text, needs_direct = f"db_host and db_port: {one_line(error)}", True
        findings = [Finding(Mark.FAILED, text, _advise_pooled(text))]
    if settings.has_direct_settings:
        direct = _check_direct(settings)
        findings += direct
        for database in databases:
            findings += check_database(settings, database)
        if not databases and direct[0].mark is Mark.OK:
            findings += check_role(settings)
    elif needs_direct:
        text = "no imdispatcher_db_* setting is there"
        findings.append(Finding(Mark.FAILED, text, try_auto(settings) or NAME_POSTGRESQL))
    return findings


def _advise_pooled(text: str) -> str:
    return advise(text) if "no such database" in text else POOLED_ADVICE


def _check_pooled(settings: Settings, databases: Collection[str]) -> tuple:
    """Return what the pooled connection is, and whether something needs a direct one."""
    with Session(settings.pooled, CHECK_TIMEOUT) as session:
        limit, used, listeners = session.run(USED_CONNECTIONS_SQL)
        (backend,) = session.run(BACKEND_PID_SQL)
        pooler = backend != session.connection.get_backend_pid()
        endpoint = session.endpoint
    lent = [name for name in (settings.database,) if is_lent(settings, name)]
    for name in databases:
        try:
            lent += [name] if is_lent(settings, name) else []
        except psycopg2.Error:
            if not settings.has_direct_settings:
                raise  # else check_database tells of it
    if settings.database in lent:
        kind = TRANSACTION_POOLER
    elif lent:
        kind = MIXED_POOLER.format(settings.database, ", ".join(lent))
    else:
        kind = SESSION_POOLER if pooler else NO_POOLER_SEEN
    room = f"{used} of {limit} connections of PostgreSQL are in use, {listeners} by listeners"
    room = f"{room}; this Odoo opens {NEEDED} for its own"
    found = Finding(Mark.OK, f"db_host and db_port: {endpoint} {kind}")
    return [found, Finding(Mark.NOTE, room)], bool(lent)


def _check_direct(settings: Settings) -> list[Finding]:
    status, tls = _listen_for_a_moment(settings)
    if status.state is not State.LISTENING:
        reason = status.reason or f"no answer within {CHECK_TOTAL_TIMEOUT:g} s"
        text = f"{DB_PREFIX}*: {status.state.value}: {reason}"
        # where it listens, but nothing was sent, the reason is about the pooled connection
        unsent = status.state is State.UNKNOWN
        advice = _advise_pooled(text) if unsent else advise(text, status.error)
        return [Finding(Mark.FAILED, text, advice)]
    default = "verify-full" if settings.listener.get("sslrootcert") == "system" else "prefer"
    mode = settings.listener.get("sslmode", default)
    heard = f"a NOTIFY on the pooled connection was heard at {status.where}"
    encrypted = f"the direct connection: {tls or 'not encrypted'} (sslmode={mode})"
    return [Finding(Mark.OK, heard), Finding(Mark.NOTE, encrypted)]


def _has_several_addresses(listener: Mapping[str, str]) -> bool:
    """Tell whether another address may answer where the first does not."""
    if listener.get("host") == AUTO:
        return True
    try:
        resolved = resolve_hosts(listener, CHECK_TIMEOUT)
    except PrimaryUnavailable:
        return False
    return "," in resolved.get("hostaddr", resolved.get("host", ""))


def _listen_for_a_moment(settings: Settings) -> tuple:
    """Start the listener that the server would start, and return its status and its TLS."""
    listener = settings.listener
    timeout = min(CHECK_TIMEOUT, float(listener["connect_timeout"]) or CHECK_TIMEOUT)
    short_timeouts = settings._replace(listener={**listener, "connect_timeout": str(timeout)})
    inbox = Inbox("imbus")
    thread = Listener(short_timeouts, inbox, Timing(probe_timeout=CHECK_PROBE_TIMEOUT))
    status = thread.status
    thread.start()
    deadline = time.monotonic() + CHECK_TOTAL_TIMEOUT
    has_others = _has_several_addresses(listener)

    def may_change() -> bool:
        another = has_others or isinstance(status.error, StandbyError)
        return status.state is State.STARTING or (status.state is State.DEAF and another)

    while time.monotonic() < deadline and may_change():
        time.sleep(0.02)
    inbox.close()
    return status, thread.tls
