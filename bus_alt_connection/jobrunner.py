# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The runner of OCA's queue_job gets sessions of its own, straight to PostgreSQL.

It connects by itself, to each of Odoo's databases: there it listens, and holds an advisory lock
that makes it the only runner (``Database`` in queue_job/jobrunner/runner.py). Behind a pooler that
lends connections both stay on one that others get next, and jobs stay pending.

What the operator has set for the runner itself (``jobrunner_db_*``) counts.
"""

import os
from typing import Callable, Dict, List, Optional

import odoo

from .lookup import find, look_up
from .parameters import Settings, named

SEAM = "sessions of queue_job"
OWN = "queue_job's runner connects to {}, as its own settings (jobrunner_db_*) say"
OURS = "queue_job's runner connects to {}, as imdispatcher_db_* say"


def parameters(settings: Settings, stock: Callable[[str], Dict], db_name: str) -> Dict:
    """Return psycopg2's parameters for a database, direct ones."""
    own = _its_own(stock, db_name)
    if own:
        return own
    name = named(settings.pooled, "-jobrunner").replace("{pid}", str(os.getpid()))
    return {**settings.owner, "dbname": db_name, "application_name": name}


def where(settings: Settings) -> List[str]:
    """Return a line about where the runner connects, if it is there; before it is replaced."""
    row = find().get(SEAM)
    own = row and _its_own(look_up(row.module, row.function), settings.database)
    line, place = (OWN, own) if own else (OURS, settings.owner)
    host = place.get("host") or place.get("hostaddr") or "libpq's default host"
    return [line.format(f"{host}:{place.get('port', 5432)}")] if row else []


def _its_own(stock: Callable[[str], Dict], database: str) -> Optional[Dict]:
    """Return what queue_job's own function says, where it does not say the same as Odoo's."""
    found = stock(database)
    return None if found == odoo.sql_db.connection_info_for(database)[1] else found
