# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The runner of OCA's queue_job gets sessions of its own, straight to PostgreSQL.

It connects by itself, to each of Odoo's databases: there it listens, and holds an advisory lock
that makes it the only runner (``Database`` in queue_job/jobrunner/runner.py). Behind a pooler that
lends connections both stay on one that others get next, and jobs stay pending.

What the operator has set for the runner itself (``jobrunner_db_*``) counts.
"""

import functools
import logging
import os
from typing import Callable, Dict, Optional

import odoo

from .parameters import Settings, named

_logger = logging.getLogger(__name__)

SEAM = "sessions of queue_job"
OWN = "queue_job's runner connects to {}, as its own settings (jobrunner_db_*) say"
OURS = "queue_job's runner connects to {}, as imdispatcher_db_* say"


def connecting(stock: Callable[[str], Dict], settings: Settings):
    """Return ``_connection_info_for``, psycopg2's parameters for a database, with direct ones."""

    @functools.wraps(stock)
    def _connection_info_for(db_name):
        own = _its_own(stock, db_name)
        if own:
            return own
        name = named(settings.pooled, "-jobrunner").replace("{pid}", str(os.getpid()))
        return {**settings.owner, "dbname": db_name, "application_name": name}

    # the gevent process, which has no runner, would say it a second time
    if not odoo.evented:
        _logger.info("%s", where(stock, settings))
    return _connection_info_for


def where(stock: Callable[[str], Dict], settings: Settings) -> str:
    """Return a line about where the runner connects.

    :param stock: queue_job's own ``_connection_info_for``
    """
    own = _its_own(stock, settings.database)
    line, place = (OWN, own) if own else (OURS, settings.owner)
    host = place.get("host") or place.get("hostaddr") or "libpq's default host"
    return line.format(f"{host}:{place.get('port', 5432)}")


def _its_own(stock: Callable[[str], Dict], database: str) -> Optional[Dict]:
    """Return what queue_job's own function says, where it does not say the same as Odoo's."""
    found = stock(database)
    return None if found == odoo.sql_db.connection_info_for(database)[1] else found
