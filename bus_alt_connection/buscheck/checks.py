# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Will notifications arrive, and if not, why?

It starts the listener that the server would start, and waits for its verdict.
"""

from __future__ import annotations

import enum
import time
from typing import NamedTuple

import psycopg2

from ..config.parameters import Settings
from ..config.settings import DB_PREFIX
from ..config.timing import CHECK_PROBE_TIMEOUT, CHECK_TIMEOUT, CHECK_TOTAL_TIMEOUT, Timing
from ..listener.inbox import Inbox
from ..listener.listener import Listener
from ..listener.session import PoolerError, StandbyError
from ..listener.status import State
from ..postgres.pool_mode import BACKEND_PID_SQL, is_transaction_pooling
from ..postgres.primary import find_primary
from ..postgres.session import Session, one_line

NAME_POSTGRESQL = PoolerError.advice

# what to do, by a word of libpq's or PostgreSQL's; this addon's own errors bring their advice
ADVICE = {
    "password": "Set imdispatcher_db_user and imdispatcher_db_password, or a passfile.",
    "pg_hba": "Add a line to pg_hba.conf: host <database> <role> <address>/32 scram-sha-256",
    "permission denied": "GRANT CONNECT ON DATABASE <database> TO <role>;",
    "certificate": "Check imdispatcher_db_host and imdispatcher_db_sslrootcert.",
    "does not exist": "Check imdispatcher_db_name and imdispatcher_db_user.",
    "SSL": "The server does not offer what imdispatcher_db_sslmode asks for.",
    "no answer": f"Something drops the packets: a firewall, a wrong address. {NAME_POSTGRESQL}",
    "refused": f"Nothing listens there; see listen_addresses in postgresql.conf. {NAME_POSTGRESQL}",
    "resolved": "Check the name in imdispatcher_db_host.",
}

TRANSACTION_POOLER = "is a pooler that lends server connections: a LISTEN does not survive there"
SESSION_POOLER = (
    "is a pooler that keeps sessions: a LISTEN survives there, this addon is not needed"
)
# a pooler that passes on PostgreSQL's own backend ids cannot be told from it: pgpool, pgagroal
NO_POOLER_SEEN = (
    "is PostgreSQL itself, or a pooler that keeps sessions: a LISTEN survives there, this addon is"
    " not needed"
)

USED_CONNECTIONS_SQL = """
    SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int, count(*),
        count(*) FILTER (WHERE application_name LIKE '%-listener')
    FROM pg_stat_activity WHERE datname IS NOT NULL
"""


class Mark(enum.Enum):
    """What stands before a line of the report."""

    OK = "✓"
    FAILED = "✗"
    NOTE = "•"


class Finding(NamedTuple):
    """One line of the report, and what to do about it."""

    mark: Mark
    text: str
    advice: str = ""


def advise(text: str, error: object = None) -> str:
    """Return what to do about an error with this text."""
    by_words = (advice for word, advice in ADVICE.items() if word in text)
    return getattr(error, "advice", "") or next(by_words, "")


def run(settings: Settings, needed: int) -> list[Finding]:
    """Return what was found.

    :param needed: how many direct connections this Odoo opens
    """
    try:
        findings, transaction_pooling = _check_pooled(settings, needed)
    except psycopg2.Error as error:
        text, transaction_pooling = f"db_host and db_port: {one_line(error)}", True
        advice = "Check Odoo's own db_host, db_port, db_user and db_password."
        findings = [Finding(Mark.FAILED, text, advice)]
    if settings.has_direct_settings:
        findings += _check_direct(settings)
    elif transaction_pooling:
        text = "no imdispatcher_db_* setting is there"
        findings.append(Finding(Mark.FAILED, text, NAME_POSTGRESQL))
    return findings


def _check_pooled(settings: Settings, needed: int) -> tuple:
    pooled = settings.pooled, CHECK_TIMEOUT
    with Session(*pooled) as session, Session(*pooled) as other:
        limit, used, listeners = session.run(USED_CONNECTIONS_SQL)
        transaction_pooling = is_transaction_pooling(session, other)
        (backend,) = session.run(BACKEND_PID_SQL)
        same = backend == session.connection.get_backend_pid()
        kind = NO_POOLER_SEEN if same else SESSION_POOLER
        kind = TRANSACTION_POOLER if transaction_pooling else kind
        found = Finding(Mark.OK, f"db_host and db_port: {session.endpoint} {kind}")
    room = f"{used} of {limit} connections of PostgreSQL are in use, {listeners} by listeners"
    room = Finding(Mark.NOTE, f"{room}; this Odoo opens {needed} for its own")
    return [found, room], transaction_pooling


def _check_direct(settings: Settings) -> list[Finding]:
    status, tls = _listen_for_a_moment(settings)
    if status.state is not State.LISTENING:
        reason = status.reason or f"no answer within {CHECK_TOTAL_TIMEOUT:g} s"
        text = f"{DB_PREFIX}*: {status.state.value}: {reason}"
        return [Finding(Mark.FAILED, text, advise(text, status.error))]
    default = "verify-full" if settings.listener.get("sslrootcert") == "system" else "prefer"
    mode = settings.listener.get("sslmode", default)
    heard = f"a NOTIFY on the pooled connection was heard at {status.where}"
    encrypted = f"the direct connection: {tls or 'not encrypted'} (sslmode={mode})"
    findings = [Finding(Mark.OK, heard), Finding(Mark.NOTE, encrypted)]
    return findings + _check_odoos_role(settings)


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
    # of several hosts the first may be dead; a name may have the addresses of standbys, too
    has_several_hosts = "," in listener.get("hostaddr", listener.get("host", ""))

    def may_change() -> bool:
        another_host = has_several_hosts or isinstance(status.error, StandbyError)
        return status.state is State.STARTING or (status.state is State.DEAF and another_host)

    while time.monotonic() < deadline and may_change():
        time.sleep(0.02)
    inbox.close()
    return status, thread.tls


def _check_odoos_role(settings: Settings) -> list[Finding]:
    """Find out whether Odoo's own role may connect, where another one listens."""
    try:
        find_primary({**settings.direct, "connect_timeout": str(CHECK_TIMEOUT)})
    except psycopg2.Error as error:
        text = f"module updates and backups may fail: {one_line(error)}"
        return [Finding(Mark.NOTE, text, advise(text, error))]
    return []
