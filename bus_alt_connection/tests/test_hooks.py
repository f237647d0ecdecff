# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Needs bus_alt_connection loaded server-wide, with imdispatcher_db_* set."""

import inspect

import odoo
from odoo.tests import common, tagged

from odoo.addons.bus.models.bus import ImDispatch
from odoo.addons.bus_alt_connection.integration import patches, startup
from odoo.addons.bus_alt_connection.integration.odoo_functions import TARGETS, ReplaceTarget
from odoo.addons.bus_alt_connection.integration.resolve import resolve
from odoo.addons.bus_alt_connection.integration.runtime import Runtime
from odoo.addons.bus_alt_connection.listener import inbox
from odoo.addons.bus_alt_connection.outbox import outbox


@tagged("post_install", "-at_install")
class TestHooks(common.TransactionCase):
    def test_every_place_of_the_table_is_there(self):
        resolution = resolve()
        self.assertEqual(resolution.missing, [])
        self.assertLessEqual(set(resolution.found), {row.name for row in TARGETS})

    def test_each_function_that_is_replaced_has_a_replacement(self):
        runtime = Runtime(startup.load_settings(), resolve(), startup.version())
        rows = {row.name for row in TARGETS if isinstance(row, ReplaceTarget)}
        self.assertEqual(set(patches.list_replacements(runtime)), rows)

    def test_what_replaces_a_method_in_a_module_is_no_staticmethod(self):
        """That is not callable before Python 3.10."""
        self.patch(odoo.sql_db, "db_connect", self.db_connect)
        patches.replace(resolve().found["connections"], lambda original, to: original(to))
        self.assertNotIsInstance(vars(odoo.sql_db)["db_connect"], staticmethod)
        self.assertEqual(odoo.sql_db.db_connect("postgres"), "connected to postgres")

    def db_connect(self, to):
        return f"connected to {to}"

    def test_other_cursors_are_odoos_own(self):
        with odoo.sql_db.db_connect("postgres").cursor() as cr:
            self.assertNotIsInstance(cr._cnx, inbox.Inbox)
        self.assertNotIsInstance(self.env.cr._cnx, inbox.Inbox)

    def test_db_connect_takes_what_odoo_s_own_takes(self):
        original = inspect.unwrap(odoo.sql_db.db_connect)
        self.assertIsNot(original, odoo.sql_db.db_connect)
        (first, *_others) = inspect.signature(original).parameters
        with odoo.sql_db.db_connect(**{first: self.env.cr.dbname}).cursor() as cr:
            self.assertEqual(cr.dbname, self.env.cr.dbname)

    def test_the_dispatcher_waits_on_an_inbox(self):
        met = []

        class Stop(Exception):
            pass

        def commit(cursor):
            met.append(cursor)
            raise Stop()

        self.patch(inbox.ListenConnection, "commit", commit)
        with self.assertRaises(Stop):
            ImDispatch().loop()
        (cursor,) = met
        self.assertEqual(cursor._cnx.channel, "imbus")
        self.assertTrue(cursor._cnx.closed, "it ends with its cursor")

    def test_a_notification_is_put_into_the_outbox(self):
        put = []
        self.patch(outbox.Outbox, "put", lambda box, *query: put.append(query))
        bus = self.env["bus.bus"]
        if hasattr(bus, "_sendone"):
            bus._sendone("channel", "bus_alt_connection.test", {})
        else:  # 14.0
            bus.sendone("channel", {})
        self.env.cr.postcommit.run()
        self.assertEqual(len(put), 1)
