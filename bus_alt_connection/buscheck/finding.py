# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""One line of the report, and what to do about it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..listener.session import PoolerError

NAME_POSTGRESQL = PoolerError.advice

# what to do, by a word of libpq's, PostgreSQL's or a provider's, the most telling first; this
# addon's own errors bring their advice
ADVICE = {
    "no encryption": "PostgreSQL wants TLS: set imdispatcher_db_sslmode = require.",
    "no such database": "Add this database, or *, to [databases] of the pooler.",
    "Tenant or user not found": (
        "The pooler knows the role by another name than PostgreSQL: set imdispatcher_odoo_user and"
        " imdispatcher_db_user to the name without the project's suffix."
    ),
    "ndpoint ID is not specified": (
        "This libpq is too old to send the server's name: set imdispatcher_db_options ="
        " endpoint=<endpoint id>."
    ),
    "remaining connection slots": (
        "PostgreSQL is full: raise max_connections, or lower the pooler's max_db_connections."
    ),
    "too many clients": (
        "PostgreSQL is full: raise max_connections, or lower the pooler's max_db_connections."
    ),
    "too many connections": "Raise the limit of the role or database (ALTER … CONNECTION LIMIT).",
    "method requirement": (
        "No password is sent in clear text or as MD5 to a server that was not named: name it in"
        " imdispatcher_db_host, or let it ask for scram-sha-256."
    ),
    "password": "Set imdispatcher_db_user and imdispatcher_db_password, or a passfile.",
    "pg_hba": "Add a line to pg_hba.conf: host <database> <role> <address>/32 scram-sha-256",
    "permission denied": "GRANT CONNECT ON DATABASE <database> TO <role>;",
    "root certificate": "Set imdispatcher_db_sslrootcert; PGSSLROOTCERT may be the pooler's.",
    "certificate": "Check imdispatcher_db_host and imdispatcher_db_sslrootcert.",
    "does not exist": "Check imdispatcher_db_name and imdispatcher_db_user.",
    "SSL": "The server does not offer what imdispatcher_db_sslmode asks for.",
    "no answer": f"Something drops the packets: a firewall, a wrong address. {NAME_POSTGRESQL}",
    "refused": f"Nothing listens there; see listen_addresses in postgresql.conf. {NAME_POSTGRESQL}",
    "resolved": "Check the name in imdispatcher_db_host.",
}


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
    about_notifications: bool = True  # whether a failure keeps them away


def advise(text: str, error: object = None) -> str:
    """Return what to do about an error with this text."""
    by_words = (advice for word, advice in ADVICE.items() if word in text)
    return getattr(error, "advice", "") or next(by_words, "")
