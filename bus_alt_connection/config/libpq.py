# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Parameters of libpq: what can be read from them, and made of them."""

from __future__ import annotations

import os
import re
from typing import Mapping

from psycopg2.extensions import libpq_version

from .settings import AUTO
from .timing import CONNECT_TIMEOUT

NAMEDATALEN = 64  # PostgreSQL cuts application_name at this length, its last byte included

# the address in the environment ("34.15. Environment Variables" of the libpq documentation)
ADDRESS_VARIABLES = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT"}

# what has no environment variable there, and what the tools have of their own: the database as an
# argument, a name
NO_VARIABLE = re.compile(r"keepalives.*|tcp_user_timeout|sslpassword|dbname|.*application_name")

# of several hosts: before libpq 14, and for tools that may be older, the one that can be written to
READ_WRITE = "read-write"
PRIMARY = "primary" if libpq_version() >= 140000 else READ_WRITE


def application_name(pooled: Mapping[str, str], suffix: str) -> str:
    """Return Odoo's ``application_name`` with a suffix that says what the session is for."""
    # a process's number may have two characters more than {pid}
    name = pooled["application_name"].encode()[: NAMEDATALEN - 3 - len(suffix)]
    return name.decode(errors="ignore") + suffix


def expand_pid(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters with this process's number in ``application_name``.

    A worker is forked after the settings were read.
    """
    name = parameters["application_name"].replace("{pid}", str(os.getpid()))
    return {**parameters, "application_name": name}


def endpoint(parameters: Mapping[str, str]) -> str:
    """Return where these parameters lead, as the log shows it."""
    host = parameters.get("host") or parameters.get("hostaddr") or "libpq's default host"
    if host == AUTO:
        return "the server that the pooler leads to"
    return f"{host}:{parameters.get('port', 5432)}"


def connect_timeout(parameters: Mapping[str, str]) -> float:
    """Return their ``connect_timeout`` in seconds.

    libpq takes 0 for no limit; here there is one, so that the log says what does not answer.
    """
    return float(parameters["connect_timeout"]) or CONNECT_TIMEOUT


def libpq_environ(environ: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which pg_dump and its like go where these parameters say."""
    # what stands there leads to the pooler; a service file beats all other variables
    replaced = (*ADDRESS_VARIABLES.values(), "PGSERVICE")
    result = {name: value for name, value in environ.items() if name not in replaced}
    for keyword, value in parameters.items():
        if not NO_VARIABLE.fullmatch(keyword):
            short = keyword if keyword == "connect_timeout" else keyword.replace("_", "")
            result["PG" + short.upper()] = value
    return result
