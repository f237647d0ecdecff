# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the database manager gets: its list of databases, and where pg_dump and its like connect."""

import contextlib

import psycopg2

from .parameters import Settings, variables
from .session import primary


def without(system: str, stock, *args, **kwargs) -> list:
    """Return Odoo's databases without the system database, whatever its name."""
    return [name for name in stock(*args, **kwargs) if name != system]


def with_variables(settings: Settings, stock, *args, **kwargs) -> dict:
    """Return the environment of pg_dump and its like, with libpq's variables.

    Through a pooler in transaction mode ``pg_dump`` leaves its ``search_path`` behind on server
    connections that other users get next.
    """
    owner = settings.owner
    with contextlib.suppress(psycopg2.OperationalError):  # the tool itself will say it
        owner = primary(owner)
    return variables(stock(*args, **kwargs), owner)
