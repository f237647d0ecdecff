# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Does the direct connection lead where the pooled one leads, for one of Odoo's databases?"""

from __future__ import annotations

import psycopg2

from ..config.parameters import Settings
from ..config.settings import AUTO
from ..config.timing import CHECK_TIMEOUT
from ..postgres.pool_mode import is_transaction_pooling
from ..postgres.proof import NotProven, Proven, prove
from ..postgres.session import Session, one_line
from .finding import Finding, Mark, advise

SESSIONS = 8  # compared, to see the mode of several poolers behind one address

AUTO_WORKS = "Set imdispatcher_db_host = auto: it was tried just now and leads to {}."
NO_SUCH_DATABASE = "Check the name of the database: after -d, or in db_name."
USE_AUTO = "Set imdispatcher_db_host = auto, or name the server that the pooler leads to."
BACKUPS_REFUSED = (
    "Backups of {0} are refused, since pg_dump would be given that name: call it {1} at the pooler."
)

MAY_SQL = "SELECT has_database_privilege(current_database(), 'CREATE')"


def is_lent(settings: Settings, database: str) -> bool:
    """Tell whether the pooler is in transaction mode for a database.

    :raises psycopg2.Error: where the pooled connection does not answer
    """
    with Session({**settings.pooled, "dbname": database}, CHECK_TIMEOUT) as session:
        return is_transaction_pooling(session, limit=SESSIONS)


def try_auto(settings: Settings) -> str:
    """Return what to do where nothing is set, once it was tried that it works; else nothing."""
    address = ("host", "hostaddr", "port", "service")
    direct = {key: text for key, text in settings.direct.items() if key not in address}
    direct.update(host=AUTO, connect_timeout=str(CHECK_TIMEOUT))
    try:
        return AUTO_WORKS.format(prove(direct, settings.pooled, settings.database).route.end)
    except psycopg2.Error:
        return ""


def check_role(settings: Settings) -> list[Finding]:
    """Find out whether Odoo's own role may connect directly, where no database is named."""
    direct = {**settings.direct, "connect_timeout": str(CHECK_TIMEOUT)}
    try:
        prove(direct, settings.pooled, settings.database)
    except psycopg2.Error as error:
        text = f"module updates and backups may fail: {one_line(error)}"
        return [Finding(Mark.NOTE, text, advise(text, error))]
    return []


def check_database(settings: Settings, database: str) -> list[Finding]:
    """Return where each of the two ways to a database leads, and what would fail there."""
    direct = {**settings.direct, "connect_timeout": str(CHECK_TIMEOUT)}
    try:
        proven = prove(direct, settings.pooled, database)
    except psycopg2.Error as error:
        reason = one_line(error)
        if database not in reason:
            reason = f"database {database}: {reason}"
        text = f"updates, backups and queue_job: {reason}"
        elsewhere = isinstance(error, NotProven) and settings.direct.get("host") != AUTO
        advice = advise(reason, error) or (USE_AUTO if elsewhere else "")
        if f'database "{database}" does not exist' in reason:
            advice = NO_SUCH_DATABASE
        return [Finding(Mark.FAILED, text, advice, about_notifications=False)]
    end = proven.route.end
    text = f"database {database}: pooled and direct connection lead to {end}"
    return [Finding(Mark.OK, text), *_notes(proven, database)]


def _notes(proven: Proven, database: str) -> list[Finding]:
    """Return what would fail later."""
    route, findings = proven.route, []
    if route.database != database:
        advice = BACKUPS_REFUSED.format(database, route.database)
        text = f"the pooler's {database} is PostgreSQL's {route.database}. {advice}"
        findings.append(Finding(Mark.NOTE, text))
    try:
        proven.check_update()
    except NotProven as error:
        text = f"updates of {one_line(error)}"
        findings.append(Finding(Mark.FAILED, text, about_notifications=False))
    with Session(proven.parameters) as session:
        (may_create,) = session.run(MAY_SQL)
    if not may_create:
        text = f"updates of {database} may fail: role {proven.user} has no CREATE on the database"
        findings.append(Finding(Mark.NOTE, text))
    return findings
