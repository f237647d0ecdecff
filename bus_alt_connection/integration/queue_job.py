# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The runner of OCA's queue_job gets sessions of its own, directly to PostgreSQL.

It connects by itself, to each of Odoo's databases: there it listens, and holds an advisory lock
that makes it the only runner (``Database`` in queue_job/jobrunner/runner.py). Behind a pooler in
transaction mode both stay on a connection that another session gets next, and jobs stay pending.

What the operator has set for the runner itself (``jobrunner_db_*``) counts. Where the direct
connection is not proven, the runner gets none, and tries again after 5 s: a lock that it left on a
pooled connection would keep every other runner away.
"""

from __future__ import annotations

from typing import Callable, Mapping

import odoo

from ..config.libpq import application_name, endpoint, expand_pid
from ..config.parameters import Settings
from ..postgres.proof import prove
from .odoo_functions import QUEUE_JOB
from .resolve import Resolution, import_attribute

BY_JOBRUNNER = "queue_job's runner connects to {}, as its own settings (jobrunner_db_*) say"
BY_ADDON = "queue_job's runner connects to {}, as imdispatcher_db_* say"


def connection_info(
    settings: Settings, connection_info_for: Callable[[str], Mapping], db_name: str
) -> Mapping:
    """Return psycopg2's parameters for a database, direct ones.

    :raises psycopg2.OperationalError: where the direct connection is not proven
    """
    configured = _operator_settings(connection_info_for, db_name)
    if configured:
        return configured
    name = application_name(settings.pooled, "-jobrunner")
    proven = prove(settings.direct, settings.pooled, db_name)
    return expand_pid({**proven.parameters, "application_name": name})


def describe_target(settings: Settings, resolution: Resolution) -> list[str]:
    """Return a line about where the runner connects, if it is there; before it is replaced."""
    row = resolution.found.get(QUEUE_JOB)
    if not row:
        return []
    connection_info_for = import_attribute(row.module, row.function)
    configured = _operator_settings(connection_info_for, settings.database)
    if configured:
        return [BY_JOBRUNNER.format(endpoint(configured))]
    return [BY_ADDON.format(endpoint(settings.direct))]


def _operator_settings(
    connection_info_for: Callable[[str], Mapping], database: str
) -> Mapping | None:
    """Return what queue_job's own function returns, where that is not the same as Odoo's."""
    parameters = connection_info_for(database)
    same = parameters == odoo.sql_db.connection_info_for(database)[1]
    return None if same else parameters
