# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the database manager gets: its list of databases, and where pg_dump and its like connect."""

from __future__ import annotations

import contextlib

import psycopg2

from ..config.parameters import Settings, libpq_environ
from ..postgres.primary import find_primary


def hide_system_database(system: str, list_dbs, *args, **kwargs) -> list[str]:
    """Return Odoo's databases without the system database, whatever its name."""
    return [name for name in list_dbs(*args, **kwargs) if name != system]


def tool_environ(settings: Settings, exec_pg_environ, *args, **kwargs) -> dict[str, str]:
    """Return the environment of pg_dump and its like, with libpq's variables.

    Through a pooler in transaction mode ``pg_dump`` leaves its ``search_path`` behind on server
    connections that other users get next.
    """
    target = settings.direct
    with contextlib.suppress(psycopg2.OperationalError):  # the tool itself will report it
        target = find_primary(target)
    return libpq_environ(exec_pg_environ(*args, **kwargs), target)
