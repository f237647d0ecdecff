# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A direct connection is proven before it is used: it leads where the pooled one leads.

A NOTIFY on the pooled connection to a database is received in a direct session with it. Nothing
else finds everything: another database of the same name, another server, a standby, a pooler.
"""

from __future__ import annotations

import functools
import secrets
import time
from typing import Any, Callable, Iterator, Mapping, NamedTuple

import psycopg2

from ..config.libpq import READ_WRITE, connect_timeout, expand_pid
from ..config.settings import AUTO
from ..config.timing import PROOF_TIMEOUT
from .hosts import KEYS, resolve_hosts
from .pool_mode import is_transaction_pooling
from .route import Route, list_attempts, read_route
from .session import Session, one_line

PROBE_CHANNEL = "bus_alt_connection"

# pg_notify is what NOTIFY calls
NOTIFY_SQL = "SELECT current_database() FROM pg_notify('{}', '{}')"

SERVER_KEEPALIVES = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)

NOT_ASKED = "the pooled connection to database {} (Odoo's db_host and db_port) does not answer: {}"
STANDBY = "the pooled connection to database {} leads to a standby: {}"
ELSEWHERE = (
    "the pooler's database {} is {}; the direct connection leads to {}: a NOTIFY on the one was not"
    " received on the other"
)
POOLER = (
    "the pooler's database {} is {}; the direct connection leads to {}, which is a pooler in"
    " transaction mode"
)
REFUSED = "the pooler's database {} is {}, and there the direct connection fails: {}"
SEARCH_PATH = (
    "database {}: search_path is {!r} on the pooled connection and {!r} on the direct one:"
    " PGOPTIONS, or connect_query of the pooler, counts on one of them alone"
)
ROLE = (
    "database {}: the pooler logs in as {}, the direct connection as {}: set imdispatcher_odoo_user"
    " and imdispatcher_odoo_password to the pooler's, or new tables belong to another role"
)


class NotProven(psycopg2.OperationalError):
    """Nothing shows that a direct connection leads where the pooled one leads."""


class Proven(NamedTuple):
    """A direct connection that was proven a moment ago."""

    parameters: dict[str, str]  # libpq's, with one address alone and the database's own name
    route: Route  # where the pooled connection leads
    search_path: str  # on the direct connection
    user: str  # who logged in there

    @property
    def address(self) -> tuple:
        """Where it leads."""
        return tuple(self.parameters.get(key) for key in KEYS)

    def check_update(self) -> None:
        """Make sure that an update makes its tables as on the pooled connection: in the same
        schema, and as the same role.

        :raises NotProven: where one of them differs
        """
        route = self.route
        if self.search_path != route.search_path:
            raise NotProven(SEARCH_PATH.format(route.name, route.search_path, self.search_path))
        if self.user != route.user:
            raise NotProven(ROLE.format(route.name, route.user, self.user))


def prove(direct: Mapping[str, str], pooled: Mapping[str, str], database: str) -> Proven:
    """Find the direct connection to a database, and prove it.

    :param direct: libpq's parameters of a direct connection; any database
    :param pooled: libpq's parameters of Odoo's own connections; any database
    :param database: the database's name at the pooler
    :raises NotProven: where none was proven; the text names both ends
    :raises psycopg2.OperationalError: where a server refuses, or does not answer
    """
    ask = functools.partial(_ask_pooled, pooled, database, connect_timeout(direct))
    route = ask(lambda session: read_route(session, database))
    if route.standby:
        raise NotProven(STANDBY.format(database, route.end))
    errors: list = []
    for attempt in list_attempts(direct, pooled, route):
        for target in _addresses({**attempt, "dbname": route.database}):
            try:
                return _prove_one(target, ask, route)
            except psycopg2.OperationalError as error:
                errors.append(error)
            except psycopg2.Error as error:
                errors.append(NotProven(one_line(error)))
    if direct.get("host") == AUTO and len(errors) > 1:
        # the last attempt was the pooler itself; why the server did not take the first tells more
        refusal = REFUSED.format(database, route.end, one_line(errors[0]))
        raise errors[0] if isinstance(errors[0], NotProven) else type(errors[0])(refusal)
    # an end that was reached explains more than one that was not
    raise next((error for error in errors if isinstance(error, NotProven)), errors[-1])


def _ask_pooled(
    pooled: Mapping[str, str], database: str, timeout: float, function: Callable[[Session], Any]
) -> Any:
    """Return what a function returns for a session with a database on the pooled connection.

    Opened each time: a pooler may end one that waits for a while (client_idle_timeout).

    :param timeout: of connecting and of each answer, seconds
    :raises NotProven: where it does not answer
    """
    try:
        with Session({**pooled, "dbname": database}, timeout) as session:
            return function(session)
    except psycopg2.Error as error:
        raise NotProven(NOT_ASKED.format(database, one_line(error))) from None


def _addresses(parameters: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Return the parameters once for each address.

    libpq asks no other host once a standby that lags has answered that it has no such database
    ("34.1.1.3. Specifying Multiple Hosts" of its documentation), and in one session all share the
    time that a silent one uses up. The hosts of a service file are left to libpq.
    """
    if "service" in parameters and "host" not in parameters:
        yield dict(parameters)
        return
    resolved = resolve_hosts(parameters, connect_timeout(parameters))
    keys = [key for key in KEYS if key in resolved]
    addresses = [dict(zip(keys, row)) for row in zip(*(resolved[key].split(",") for key in keys))]
    if len(addresses) > 1:  # of one name, too
        parameters = {"target_session_attrs": READ_WRITE, **parameters}
    for address in addresses or [{}]:
        yield {**parameters, **address}


def _prove_one(target: Mapping[str, str], ask: Callable, route: Route) -> Proven:
    payload = secrets.token_hex(8)
    with Session(target) as direct:
        found = direct.run("SELECT pg_backend_pid(), current_database(), session_user")
        backend, database, user = found
        ends = route.name, route.end, f"{database} at {direct.endpoint}"
        # a pooler answers the start-up message itself, with a backend that does not exist; in
        # transaction mode a LISTEN would stay on a connection of others
        pooler = backend != direct.connection.get_backend_pid()
        if pooler and is_transaction_pooling(direct):
            raise NotProven(POOLER.format(*ends))
        direct.run(f"LISTEN {PROBE_CHANNEL}")
        ask(lambda session: session.run(NOTIFY_SQL.format(PROBE_CHANNEL, payload)))
        deadline = time.monotonic() + PROOF_TIMEOUT
        while time.monotonic() < deadline:
            arrived = direct.wait(deadline - time.monotonic())
            if any(notification.payload == payload for notification in arrived):
                (search_path,) = direct.run("SELECT current_setting('search_path')")
                parameters = direct.pin(expand_pid(target))
                if not pooler:  # which may refuse the keyword
                    parameters = _with_keepalives(parameters, direct)
                return Proven(parameters, route, search_path, user)
        raise NotProven(ELSEWHERE.format(*ends))


def _with_keepalives(parameters: Mapping[str, str], direct: Session) -> dict[str, str]:
    """Let PostgreSQL end a session within 25 s where the network took away its client.

    Else a runner of queue_job, or an update, would hold its locks for two hours.
    """
    # PGOPTIONS of the environment stands there, too, which the keyword would hide
    given = direct.connection.get_dsn_parameters().get("options", "")
    return {**parameters, "options": f"{given} {SERVER_KEEPALIVES}".strip()}
