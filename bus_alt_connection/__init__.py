# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo behind a connection pooler: LISTEN goes straight to PostgreSQL.

The parts, in the order of the story:

* ``settings``: where is PostgreSQL? Reads and checks what the operator set.
* ``parameters``: what libpq gets, put together from the settings and from Odoo's own.
* ``listener``: the connection that a listener gets.
* ``pgtools``: where ``pg_dump`` and its like connect.
* ``seams``: which functions of Odoo are concerned, the one table.
* ``redirect``: how they get what they need.

Load it server-wide (``--load=base,web,bus_alt_connection``); no database needs it installed.
"""

import logging
import os
import sys

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

    from . import listener, parameters, redirect, settings

    try:
        found = settings.read(os.environ, odoo.tools.config)
        if found:
            settings.check_system_database(found, odoo.tools.config)
            merged = parameters.merge(found, listener.odoo_parameters("postgres"))
            listener.check(merged, found)
    except settings.BadSetting as error:
        _logger.critical("%s", error)
        sys.exit(1)
    if found:
        redirect.install(found)
    elif not odoo.evented:
        # the gevent process of a prefork server would say it a second time
        _logger.warning(NOTHING_SET)
