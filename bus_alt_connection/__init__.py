# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Odoo behind a connection pooler: LISTEN goes straight to PostgreSQL.

The parts, in the order of the story:

* ``settings``, ``parameters``: where is PostgreSQL? Read, checked and merged once.
* ``session``, ``direct``: connections with deadlines, and the one that listens; with ``addresses``
  and ``waker``.
* ``listener``: the thread that keeps one session per process hearing. What it does is decided
  by ``retry``, ``proof`` (with ``probe``), ``catchup`` and ``state``, within ``times``.
* ``inbox``: what Odoo's own loops wait on; with ``payload``.
* ``outbox``: what the NOTIFY of a commit is put into; with ``pooler``.
* ``seams``, ``lookup``, ``hooks``: which functions of Odoo are concerned, and how they get all
  this; with ``loading``, ``manager``, ``websockets`` and ``jobrunner``. Nothing above this line
  imports Odoo.
* ``pages``, ``ready``, ``metrics``: what machines are told that ask over HTTP.
* ``check``, ``cli``: the command ``buscheck``.

Load it server-wide (``--load=web,bus_alt_connection``); no database needs it installed.
"""

import ast
import contextlib
import logging
import os
import sys

import psycopg2

from . import parameters
from .settings import NAME, BadSetting

if "odoo.cli" in sys.modules:
    from . import cli  # up to 18.0 a command is found because its addon imports it

_logger = logging.getLogger(__name__)

NOTHING_SET = (
    "bus_alt_connection is loaded, but no imdispatcher_db_* setting is: LISTEN goes where"
    " db_host and db_port point. Behind a pooler in transaction mode no notification will"
    " arrive; set imdispatcher_db_host and imdispatcher_db_port to PostgreSQL itself."
)


def version() -> str:
    """Return the addon's version, as its manifest has it."""
    # each series reads manifests by another function
    path = os.path.join(os.path.dirname(__file__), "__manifest__.py")
    with open(path, encoding="utf-8") as manifest:
        return ast.literal_eval(manifest.read())["version"]


def load_settings():
    """Return the settings of this Odoo (``parameters.Settings``).

    :raises settings.BadSetting: for the first that cannot work
    """
    import odoo

    from .session import Session

    def own(database):
        return odoo.sql_db.connection_info_for(database)[1]

    settings = parameters.load(os.environ, odoo.tools.config.options, own)
    if NAME in settings.given:
        # nobody may answer yet
        nobody = contextlib.suppress(psycopg2.Error, OSError)
        with nobody, Session(settings.pooled, timeout=5.0) as session:
            if session.run("SELECT to_regclass('ir_module_module')") != (None,):
                raise settings.given[NAME].bad("a database that Odoo itself does not use")
    return settings


def post_load() -> None:
    """Redirect Odoo's listeners; Odoo calls this once when it loads the addon server-wide.

    :raises SystemExit: on a bad setting, after one line in the log. Odoo goes on without
        the addon after any other exception (``load_server_wide_modules``, all series).
    """
    import odoo

    # the gevent process of a prefork server would say things a second time
    if not odoo.evented:
        # another addon of the same name may come first in addons_path: say which one this is
        _logger.info("bus_alt_connection %s from %s", version(), os.path.dirname(__file__))
    try:
        settings = load_settings()
    except BadSetting as error:
        _logger.critical("%s", error)
        sys.exit(1)
    except Exception as error:
        # its text may hold a password
        _logger.critical("bus_alt_connection cannot read its settings: %s", type(error).__name__)
        sys.exit(1)
    if settings.names_postgresql:
        from . import hooks

        try:
            hooks.install(settings)
        except Exception:
            _logger.critical("bus_alt_connection cannot begin", exc_info=True)
            sys.exit(1)
    elif not odoo.evented:
        _logger.warning(NOTHING_SET)
