# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo behind a connection pooler: LISTEN goes straight to PostgreSQL.

The folders, in the order of the story; each imports only from those before it:

* ``config``: what the operator set, as parameters of libpq; how long to wait for what.
* ``postgres``: sessions in which every wait has a deadline and can be ended.
* ``listener``: receives NOTIFY, and proves that it does; what Odoo's own loops wait on.
* ``outbox``: sends the NOTIFY of commits.
* ``sharing``: one listener for all processes of a machine.
* ``pages``, ``buscheck``: what load balancers, Prometheus and operators are shown.
* ``integration``: which functions of Odoo are replaced, and by what; with ``cli``, the command, it
  is the only part that imports Odoo.

Load it server-wide (``--load=web,bus_alt_connection``); no database needs it installed.
"""

import sys

if "odoo.cli" in sys.modules:
    from . import cli  # up to 18.0 a command is found because its addon imports it


def post_load() -> None:
    """Redirect Odoo's listeners; Odoo calls this once when it loads the addon server-wide."""
    from .integration.startup import start

    start()
