# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Needs bus_alt_connection loaded server-wide, with imdispatcher_db_* set."""

from odoo.sql_db import db_connect
from odoo.tests import common, tagged

from odoo.addons.bus.models.bus import ImDispatch
from odoo.addons.bus_alt_connection import keep, listener, pgtools, redirect, seams


@tagged("post_install", "-at_install")
class TestRedirect(common.TransactionCase):
    def test_every_listener_of_the_table_is_there(self):
        listeners = {row.name for row in seams.LISTENERS if row.first <= redirect.SERIES}
        self.assertEqual({row.name for row, _code in redirect.find_listeners()}, listeners)

    def test_other_cursors_are_odoos_own(self):
        with db_connect("postgres").cursor() as cr:
            self.assertNotIsInstance(cr._cnx, listener.Inbox)
        self.assertNotIsInstance(self.env.cr._cnx, listener.Inbox)

    def test_the_dispatcher_waits_on_an_inbox(self):
        met = []

        class Stop(Exception):
            pass

        def commit(cursor):
            met.append(cursor)
            raise Stop()

        self.patch(listener.Cursor, "commit", commit)
        with self.assertRaises(Stop):
            ImDispatch().loop()
        (cursor,) = met
        self.assertEqual(cursor._statements, ["listen imbus"])
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

    def test_the_environment_of_pg_dump(self):
        pooled = {"PATH": "/bin", "PGHOST": "pooler", "PGPORT": "6432", "PGUSER": "odoo"}
        merged = {"host": "db", "port": "5432", "connect_timeout": "10", "keepalives": "1"}
        self.assertEqual(
            pgtools.environment(pooled, {**merged, "sslrootcert": "/ca.pem", "dbname": "postgres"}),
            {
                **pooled,
                "PGHOST": "db",
                "PGPORT": "5432",
                "PGCONNECT_TIMEOUT": "10",
                "PGSSLROOTCERT": "/ca.pem",
            },
        )
        self.assertEqual(
            pgtools.environment(pooled, {"service": "direct"}),
            {"PATH": "/bin", "PGUSER": "odoo", "PGSERVICE": "direct"},
        )
