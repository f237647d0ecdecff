# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What happens when Odoo loads the addon: settings are read and checked, functions are replaced."""

from __future__ import annotations

import ast
import logging
import os
import sys

import psycopg2

import odoo

from ..buscheck.databases import is_lent, try_auto
from ..config import parameters
from ..config.values import InvalidSetting

_logger = logging.getLogger("odoo.addons.bus_alt_connection")

ADDON = os.path.dirname(os.path.dirname(__file__))
SERVER_VARIABLE = "BUS_ALT_CONNECTION_SERVER"

NOTHING_SET = (
    "bus_alt_connection is loaded, but no imdispatcher_db_* setting is: LISTEN goes where"
    " db_host and db_port point. Behind a pooler in transaction mode no notification will"
    " arrive; set imdispatcher_db_host and imdispatcher_db_port to PostgreSQL itself."
)
CANNOT_BEGIN = (
    "bus_alt_connection cannot begin: Odoo goes on without it. Behind a pooler in transaction mode"
    " no notification will arrive."
)


def version() -> str:
    """Return the addon's version, as its manifest has it."""
    # each series reads manifests by another function
    with open(os.path.join(ADDON, "__manifest__.py"), encoding="utf-8") as manifest:
        return ast.literal_eval(manifest.read())["version"]


def number_of_server() -> int:
    """Return the same number in all processes of one Odoo server: that of its first one.

    Workers are forked later; the gevent process is a program of its own, which may run alone.
    """
    own, parent = os.getpid(), os.getppid()
    if odoo.evented:
        return parent if os.environ.get(SERVER_VARIABLE) == str(parent) else own
    os.environ[SERVER_VARIABLE] = str(own)  # for the gevent process
    return own


def load_settings() -> parameters.Settings:
    """Return the settings of this Odoo.

    :raises InvalidSetting: for the first that cannot work
    """

    def connection_info(database):
        return odoo.sql_db.connection_info_for(database)[1]

    return parameters.load(os.environ, odoo.tools.config.options, connection_info)


def start() -> None:
    """Redirect Odoo's listeners.

    :raises SystemExit: on a bad setting, after one line in the log. Nothing else stops the server:
        it is not to be worse than without the addon.
    """
    # the gevent process of a prefork server would repeat what its parent has logged
    repeats = number_of_server() != os.getpid()
    if not repeats:
        # another addon of the same name may come first in addons_path: show which one this is
        _logger.info("bus_alt_connection %s from %s", version(), ADDON)
    try:
        settings = load_settings()
    except InvalidSetting as error:
        _logger.critical("%s", error)
        sys.exit(1)
    except Exception as error:
        # its text may hold a password
        _logger.critical("bus_alt_connection cannot read its settings: %s", type(error).__name__)
        _logger.critical(CANNOT_BEGIN)
        return
    if settings.has_direct_settings:
        try:
            from .patches import install

            install(settings, version())
        except Exception:
            _logger.critical(CANNOT_BEGIN, exc_info=True)
    elif not repeats:
        _logger.warning("%s%s", NOTHING_SET, _what_works(settings))


def _what_works(settings: parameters.Settings) -> str:
    """Return what would work here, once it was tried, or nothing; takes some seconds at most."""
    try:
        needed = is_lent(settings, settings.database)
    except psycopg2.Error:
        return ""
    return f" {try_auto(settings)}" if needed else ""
