# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Will notifications arrive, and if not, why? What the command ``buscheck`` finds out.

It starts the listener that the server would start, and waits for its verdict.
"""

import time
from typing import Collection, List, NamedTuple

import psycopg2

from . import pooler, state
from .inbox import Inbox
from .listener import Listener
from .parameters import Settings
from .session import Session, one_line, primary
from .settings import DB, NAME, SECRET
from .times import Times

# seconds: of each address and each probe, and of all
TIMEOUT, HEARD_WITHIN, ALL = 4.0, 2.0, 10.0

GOOD, BAD, REMARK = "✓", "✗", "•"

# what to do, by a word of libpq's or of our own reasons
DIRECT = "Set imdispatcher_db_host and imdispatcher_db_port to PostgreSQL itself."
ADVICE = {
    "password": "Set imdispatcher_db_user and imdispatcher_db_password, or a passfile.",
    "pg_hba": "Add a line to pg_hba.conf: host <database> <role> <address>/32 scram-sha-256",
    "permission denied": "GRANT CONNECT ON DATABASE <database> TO <role>;",
    "certificate": "Check imdispatcher_db_host and imdispatcher_db_sslrootcert.",
    "does not exist": "Check imdispatcher_db_name and imdispatcher_db_user.",
    "SSL": "The server does not offer what imdispatcher_db_sslmode asks for.",
    "is a pooler": DIRECT,
    "no answer": f"Something drops the packets: a firewall, a wrong address. {DIRECT}",
    "refused": f"Nothing listens there; see listen_addresses in postgresql.conf. {DIRECT}",
    "resolved": "Check the name in imdispatcher_db_host.",
    "standby": "Set imdispatcher_db_host to the primary, or to all servers, separated by commas.",
    "another server": "Set imdispatcher_db_host to the server that the pooler leads to.",
    "leads to database": "See [databases] of the pooler, and imdispatcher_db_name.",
}

LENDS = "is a pooler that lends server connections: a LISTEN does not survive there"
KEEPS = "is a pooler that keeps sessions: a LISTEN survives there, this addon is not needed"
# a pooler that passes on PostgreSQL's own backend ids cannot be told from it: pgpool, pgagroal
ITSELF = (
    "is PostgreSQL itself, or a pooler that keeps sessions: a LISTEN survives there, this addon is"
    " not needed"
)

ROOM = """
    SELECT current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int, count(*),
        count(*) FILTER (WHERE application_name LIKE '%-listener')
    FROM pg_stat_activity WHERE datname IS NOT NULL
"""


class Finding(NamedTuple):
    """One line of the report."""

    mark: str
    text: str
    advice: str = ""


def bad(text: str) -> Finding:
    """Return the finding of something that keeps notifications away."""
    return Finding(BAD, text, next((ADVICE[word] for word in ADVICE if word in text), ""))


def run(settings: Settings, needed: int) -> List[Finding]:
    """Return what was found.

    :param needed: how many direct connections this Odoo opens
    """
    try:
        found, lends = _pooled(settings, needed)
    except psycopg2.Error as error:
        text, lends = f"db_host and db_port: {one_line(error)}", True
        found = [Finding(BAD, text, "Check Odoo's own db_host, db_port, db_user and db_password.")]
    if settings.names_postgresql:
        found += _direct(settings)
    elif lends:
        found.append(Finding(BAD, "no imdispatcher_db_* setting is there", DIRECT))
    return found


def _pooled(settings: Settings, needed: int) -> tuple:
    way = settings.pooled, TIMEOUT
    with Session(*way) as one, Session(*way) as other:
        limit, used, listeners = one.run(ROOM)
        lends = pooler.lends(one, other)
        (backend,) = one.run(pooler.BACKEND)
        kept = ITSELF if backend == one.connection.get_backend_pid() else KEEPS
        kind = Finding(GOOD, f"db_host and db_port: {one.place} {LENDS if lends else kept}")
    room = f"{used} of {limit} connections of PostgreSQL are in use, {listeners} by listeners"
    return [kind, Finding(REMARK, f"{room}; this Odoo opens {needed} for its own")], lends


def _direct(settings: Settings) -> List[Finding]:
    timeout = min(TIMEOUT, float(settings.direct["connect_timeout"]) or TIMEOUT)
    hurried = settings._replace(direct={**settings.direct, "connect_timeout": str(timeout)})
    inbox = Inbox("imbus")
    listener = Listener(hurried, inbox, Times(heard_within=HEARD_WITHIN))
    listener.start()
    deadline = time.monotonic() + ALL
    # of several hosts the first may be dead; a name may have the addresses of standbys, too
    several = "," in settings.direct.get("hostaddr", settings.direct.get("host", ""))
    while time.monotonic() < deadline and (
        listener.state.name == state.STARTING
        or (listener.state.name == state.DEAF and (several or "standby" in listener.state.reason))
    ):
        time.sleep(0.02)
    inbox.close()
    verdict, where = listener.state, listener.state.where
    if verdict.name == state.LISTENING:
        default = "verify-full" if settings.direct.get("sslrootcert") == "system" else "prefer"
        mode = settings.direct.get("sslmode", default)
        tls = listener.tls or "not encrypted"
        heard = Finding(GOOD, f"a NOTIFY on the pooled connection was heard at {where}")
        encrypted = Finding(REMARK, f"the direct connection: {tls} (sslmode={mode})")
        return [heard, encrypted, *_owner(settings)]
    reason = verdict.reason or f"no answer within {ALL:g} s"
    return [bad(f"{DB}*: {verdict.name}: {reason}")]


def _owner(settings: Settings) -> List[Finding]:
    """Find out whether Odoo's own role may connect, where another one listens."""
    try:
        primary({**settings.owner, "connect_timeout": str(TIMEOUT)})
    except psycopg2.Error as error:
        text = f"module updates and backups may fail: {one_line(error)}"
        return [Finding(REMARK, text, bad(text).advice)]
    return []


def answer(settings: Settings, findings: Collection[Finding]) -> dict:
    """Return all that the command says: ``ok``, ``settings``, ``checks`` and a ``verdict``."""
    rows = []
    for keyword, text in settings.direct.items():
        given = settings.given.get(NAME if keyword == "dbname" else DB + keyword)
        source = given.source if given else "Odoo's own or the addon's default"
        value = "(set)" if SECRET.search(keyword) else text
        rows.append({"name": keyword, "value": value, "source": source})
    wrong = [finding.text for finding in findings if finding.mark == BAD]
    verdict = f"Notifications do NOT arrive: {wrong[0]}" if wrong else "Notifications arrive."
    checks = [finding._asdict() for finding in findings]
    return {"ok": not wrong, "settings": rows, "checks": checks, "verdict": verdict}


def as_text(said: dict) -> str:
    """Return the answer for a person."""
    lines = ["{name:<21} {value:<27} {source}".format(**row) for row in said["settings"]] + [""]
    for check in said["checks"]:
        lines.append("{mark} {text}".format(**check))
        lines += [f"    {check['advice']}"] * bool(check["advice"])
    return "\n".join([*lines, "", said["verdict"]])
