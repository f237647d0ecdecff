# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Which of several addresses is the primary."""

from __future__ import annotations

from typing import Mapping

import psycopg2

from ..config.parameters import READ_WRITE, connect_timeout
from .hosts import KEYS, resolve_hosts
from .session import Session


def find_primary(parameters: Mapping[str, str]) -> dict[str, str]:
    """Connect, and return the parameters with one address alone: the one that takes a session.

    libpq asks no other host once a standby that lags has answered that it has no such database
    ("34.1.1.3. Specifying Multiple Hosts" of its documentation), and in one session all share the
    time that a silent one uses up.

    :param parameters: libpq's; the hosts of a service file are left to libpq
    :raises psycopg2.OperationalError: as ``Session``, for the last address
    """
    attempts: list = [{}]
    if "service" not in parameters:
        resolved = resolve_hosts(parameters, connect_timeout(parameters))
        keys = [key for key in KEYS if key in resolved]
        columns = zip(*(resolved[key].split(",") for key in keys))
        attempts = [dict(zip(keys, column)) for column in columns] or attempts
    if len(attempts) > 1:  # of one name, too
        parameters = {"target_session_attrs": READ_WRITE, **parameters}
    for attempt in attempts:
        target = {**parameters, **attempt}
        try:
            Session(target).close()
            return target
        except psycopg2.OperationalError as error:
            last = error
    raise last
