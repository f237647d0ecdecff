# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``pg_dump``, ``pg_restore`` and ``psql`` of the database manager, straight to PostgreSQL.

Through a pooler in transaction mode ``pg_dump`` leaves its ``search_path`` behind on server
connections that other users get next.
"""

import functools
from typing import Dict, Mapping

from . import parameters, paths, settings

# "34.15. Environment Variables" of the libpq documentation: PG and the keyword without
# its underscores, but for these
NAMES = {
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    # these have none
    "keepalives": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "keepalives_count": None,
    "tcp_user_timeout": None,
    "fallback_application_name": None,
    # the tools get it as an argument
    "dbname": None,
}


def redirected(stock, found: Mapping[str, settings.Value]):
    """Return a function for the place of ``exec_pg_environ`` (``odoo/tools/misc.py``).

    Like Odoo, it passes the password in the environment of the child process alone.
    """

    @functools.wraps(stock)
    def exec_pg_environ(*args, **kwargs):
        merged = parameters.merge(found, paths.normal("postgres"))
        return environment(stock(*args, **kwargs), merged)

    return exec_pg_environ


def environment(odoo: Mapping[str, str], merged: Mapping[str, str]) -> Dict[str, str]:
    """Return the environment ``odoo`` with libpq's variables set to the merged parameters."""
    # what Odoo put there leads to the pooler; a service file may leave the port out
    places = ("PGHOST", "PGHOSTADDR", "PGPORT") if "service" in merged else ("PGHOST", "PGHOSTADDR")
    result = {key: value for key, value in odoo.items() if key not in places}
    for keyword, value in merged.items():
        name = NAMES.get(keyword, "PG" + keyword.replace("_", "").upper())
        if name:
            result[name] = value
    return result
