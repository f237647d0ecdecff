# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Needs bus_alt_connection loaded server-wide, with imdispatcher_db_* set."""

from odoo.sql_db import db_connect
from odoo.tests import common, tagged

from odoo.addons.bus.models.bus import ImDispatch
from odoo.addons.bus_alt_connection import hooks, inbox, keep, seams


@tagged("post_install", "-at_install")
class TestHooks(common.TransactionCase):
    def test_every_place_of_the_table_is_there(self):
        names = {row.name for row in seams.SEAMS if row.first <= hooks.SERIES}
        self.assertEqual(set(hooks.find()), names)
        self.assertEqual(hooks.what_is_missing(), [])

    def test_other_cursors_are_odoos_own(self):
        with db_connect("postgres").cursor() as cr:
            self.assertNotIsInstance(cr._cnx, inbox.Inbox)
        self.assertNotIsInstance(self.env.cr._cnx, inbox.Inbox)

    def test_the_dispatcher_waits_on_an_inbox(self):
        met = []

        class Stop(Exception):
            pass

        def commit(cursor):
            met.append(cursor)
            raise Stop()

        self.patch(inbox.Cursor, "commit", commit)
        with self.assertRaises(Stop):
            ImDispatch().loop()
        (cursor,) = met
        self.assertEqual(cursor._cnx.channel, "imbus")
        self.assertTrue(cursor._cnx.closed, "it ends with its cursor")

    def test_connections_to_the_system_database_are_kept(self):
        db_connect("postgres")  # makes the pool
        kept = keep.KeepingPool().connection("postgres")
        with kept.cursor() as cr:
            first = cr._cnx
        self.assertFalse(first.closed, "the tests run behind a pooler")
        with kept.cursor() as cr:
            self.assertIs(cr._cnx, first)
            # as for CREATE DATABASE; the next one must not have it
            cr._cnx.autocommit = True
        with kept.cursor() as cr:
            self.assertIs(cr._cnx, first)
            self.assertFalse(cr._cnx.autocommit)
        self.patch(keep, "IDLE", 0)
        with kept.cursor() as cr:
            self.assertIsNot(cr._cnx, first)
        self.assertTrue(first.closed)

    def test_tests_keep_none(self):
        with db_connect("postgres").cursor() as cr:
            first = cr._cnx
        self.assertTrue(first.closed)
