# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo behind a connection pooler: LISTEN goes straight to PostgreSQL.

The parts, in the order of the story:

* ``settings``: where is PostgreSQL? Reads and checks what the operator set.
* ``parameters``, ``paths``: what libpq gets, for the normal path and for the direct one.
* ``session``, ``direct``: connections with deadlines, and the one of a listener.
* ``watch``: keeps a listener hearing; with ``probe``, ``payload``, ``catchup`` and ``state``.
* ``listener``: what Odoo's loop waits on.
* ``pgtools``: where ``pg_dump`` and its like connect.
* ``seams``, ``redirect``: which functions of Odoo are concerned, and how they get all this.
* ``ready``, ``check``, ``cli``: what the operator sees of it.

Load it server-wide (``--load=base,web,bus_alt_connection``); no database needs it installed.
"""

import logging
import os
import sys

if "odoo.cli" in sys.modules:
    from . import cli  # up to 18.0 a command is found because its addon imports it

_logger = logging.getLogger(__name__)

NOTHING_SET = (
    "bus_alt_connection is loaded, but no imdispatcher_db_* setting is: LISTEN goes where"
    " db_host and db_port point. Behind a pooler in transaction mode no notification will"
    " arrive; set imdispatcher_db_host and imdispatcher_db_port to PostgreSQL itself."
)


def post_load() -> None:
    """Redirect Odoo's listeners; Odoo calls this once when it loads the addon server-wide.

    :raises SystemExit: on a bad setting, after one line in the log. Odoo goes on without
        the addon after any other exception (``load_server_wide_modules``, all series).
    """
    import odoo

    from . import parameters, paths, redirect, settings

    try:
        found = settings.read(os.environ, odoo.tools.config)
        if settings.name_a_place(found):
            settings.check_system_database(found, odoo.tools.config)
            merged = parameters.merge(found, paths.normal("postgres"))
            paths.check(merged, found)
    except settings.BadSetting as error:
        _logger.critical("%s", error)
        sys.exit(1)
    if settings.name_a_place(found):
        redirect.install(found)
    elif not odoo.evented:
        # the gevent process of a prefork server would say it a second time
        _logger.warning(NOTHING_SET)
