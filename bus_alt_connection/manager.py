# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the database manager gets: its list of databases, and where pg_dump and its like connect."""

import contextlib
import functools

import psycopg2

from .parameters import Settings, variables
from .session import primary


def without(stock, system: str):
    """Return a function that lists databases without the system database, whatever its name."""

    @functools.wraps(stock)
    def databases(*args, **kwargs):
        return [name for name in stock(*args, **kwargs) if name != system]

    return databases


def with_variables(stock, settings: Settings):
    """Return ``exec_pg_environ``, the environment of pg_dump and its like, with libpq's variables.

    Through a pooler in transaction mode ``pg_dump`` leaves its ``search_path`` behind on server
    connections that other users get next.
    """

    @functools.wraps(stock)
    def exec_pg_environ(*args, **kwargs):
        owner = settings.owner
        with contextlib.suppress(psycopg2.OperationalError):  # the tool itself will say it
            owner = primary(owner)
        merged = {**stock(*args, **kwargs), **variables(owner)}
        return {name: value for name, value in merged.items() if value is not None}

    return exec_pg_environ
