# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The two paths to PostgreSQL: the normal one, Odoo's own, and the direct one."""

import os
from typing import Dict, Mapping

import psycopg2

import odoo

from . import parameters, settings

NAMEDATALEN = 64  # PostgreSQL cuts application_name at this length, its last byte included


def normal(database: str) -> Dict[str, str]:
    """Return the parameters of Odoo's own connections to this database.

    ``odoo.sql_db.connection_info_for`` knows, in each series, ``db_*`` and what of the
    ``PG*`` environment variables counts beside them.
    """
    return odoo.sql_db.connection_info_for(database)[1]


def direct(channel: str, database: str, found: Mapping[str, settings.Value]) -> Dict[str, str]:
    """Return the parameters of a session for this channel, straight to PostgreSQL.

    :raises settings.BadSetting: as ``parameters.merge``
    """
    base = normal(database)
    merged = parameters.merge(found, base)
    suffix = f"-{channel}"
    name = base.get("application_name") or f"odoo-{os.getpid()}"
    merged.setdefault("application_name", name[: NAMEDATALEN - 1 - len(suffix)] + suffix)
    return merged


def check(merged: Mapping[str, str], found: Mapping[str, settings.Value]) -> None:
    """Let libpq itself look at the parameters, without connecting anywhere.

    libpq checks its options before it connects, so with a socket folder that does not
    exist only a bad option gives an error that does not name the folder.

    :raises settings.BadSetting: where libpq refuses an option
    """
    nowhere = "/bus_alt_connection/no/such/folder"
    dry = {key: value for key, value in merged.items() if key != "hostaddr"}
    try:
        psycopg2.connect(**{**dry, "host": nowhere, "port": "5432"})
    except psycopg2.Error as error:
        if nowhere not in str(error):
            value = found.get("dsn") or settings.Value("", "Odoo's own db_* settings")
            raise settings.BadSetting(
                "dsn", value, "see libpq's parameter key words", str(error).splitlines()[0]
            ) from None
