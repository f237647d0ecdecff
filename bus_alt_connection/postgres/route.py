# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Where does a pooled connection lead, and which parameters go there directly?

The pooler knows it, and so does the server at its other end: it is asked. The answer is used for
one direct session, and asked for again for the next one, so it follows a failover.
"""

from __future__ import annotations

import ipaddress
from typing import Mapping, NamedTuple

from psycopg2.extensions import libpq_version

from ..config.settings import AUTO
from .session import Session

# the port that the server has itself, where the session came through a socket
ROUTE_SQL = """
    SELECT current_database(), host(inet_server_addr()),
        coalesce(inet_server_port(), current_setting('port')::int), pg_is_in_recovery(),
        current_setting('search_path'), session_user
"""

# no password goes in clear text, nor as an MD5 hash, to a server that the operator has not named
REQUIRE_AUTH_SINCE = 160000  # libpq's version
SAFE_AUTH = "scram-sha-256,gss,sspi,none"
AUTHENTICATED = ("verify-ca", "verify-full")  # values of sslmode that check who the server is


class Route(NamedTuple):
    """The other end of a pooled connection."""

    name: str  # of the database, at the pooler
    pooler: str  # the pooler's host, as it was reached
    pooler_is_here: bool  # on this machine
    database: str  # the database's own name
    address: str | None  # the server's; None: the pooler reaches it through a socket
    port: int
    standby: bool
    search_path: str
    user: str

    @property
    def end(self) -> str:
        """The database and the server, for the log."""
        return f"{self.database} at {self.address or self.pooler}:{self.port}"


def read_route(session: Session, name: str) -> Route:
    """Ask the server at the other end of a pooled session where that is.

    :param name: of the database, at the pooler
    :raises psycopg2.Error: where there is no answer
    """
    row = session.run(ROUTE_SQL)
    pooler = session.endpoint.rpartition(":")[0].strip("[]")
    return Route(name, pooler, session.peer_is_loopback, *row)


def list_attempts(
    parameters: Mapping[str, str], pooled: Mapping[str, str], route: Route
) -> list[dict[str, str]]:
    """Return the parameters that may lead where a pooled connection leads, the best first.

    :param parameters: libpq's, of a direct connection; ``AUTO`` as host: where the route leads
    :param pooled: libpq's, of the pooled connection
    """
    if parameters.get("host") != AUTO:
        return [dict(parameters)]
    port = parameters.get("port") or str(route.port)
    attempts = []
    for host in _hosts(route):
        attempt = {**parameters, "host": host, "port": port}
        known = host == route.pooler or parameters.get("sslmode") in AUTHENTICATED
        if not known and libpq_version() >= REQUIRE_AUTH_SINCE:
            attempt.setdefault("require_auth", SAFE_AUTH)
        attempts.append(attempt)
    return [*attempts, _pooler_itself(parameters, pooled)]


def _hosts(route: Route) -> list[str]:
    """Return where the server may be; it tells a loopback address, or none, where the pooler is on
    its machine: the one that ``db_host`` names."""
    if route.address and not ipaddress.ip_address(route.address).is_loopback:
        return [route.address]
    hosts = [route.pooler]
    if route.pooler_is_here:
        hosts += [route.address or "127.0.0.1", "127.0.0.1"]
    return list(dict.fromkeys(hosts))


def _pooler_itself(parameters: Mapping[str, str], pooled: Mapping[str, str]) -> dict[str, str]:
    """Return ``db_host`` and ``db_port``: a pooler in session mode, or none at all."""
    result = {key: text for key, text in parameters.items() if key not in ("host", "port")}
    result.update({key: pooled[key] for key in ("host", "hostaddr", "port") if key in pooled})
    return result
