# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Needs bus_alt_connection loaded server-wide, with imdispatcher_db_* set."""

from odoo.sql_db import db_connect
from odoo.tests import common, tagged

from odoo.addons.bus.models.bus import ImDispatch
from odoo.addons.bus_alt_connection import listener, pgtools, redirect, seams


def pid_of(cr):
    cr.execute("SELECT pg_backend_pid()")
    return cr.fetchone()[0]


@tagged("post_install", "-at_install")
class TestRedirect(common.TransactionCase):
    def test_every_listener_of_the_table_is_there(self):
        listeners = {row.name for row in seams.LISTENERS if row.first <= redirect.SERIES}
        self.assertEqual({row.name for row, _code in redirect.find_listeners()}, listeners)

    def test_other_cursors_are_odoos_own(self):
        with db_connect("postgres").cursor() as cr:
            self.assertNotIsInstance(cr._cnx, listener.ListeningConnection)
        self.assertNotIsInstance(self.env.cr._cnx, listener.ListeningConnection)

    def test_the_dispatcher_gets_a_session_of_its_own(self):
        met = []

        class Stop(Exception):
            pass

        def commit(connection):
            met.append(connection)
            raise Stop()

        self.patch(listener.ListeningConnection, "commit", commit)
        with self.assertRaises(Stop):
            ImDispatch().loop()
        (connection,) = met
        self.assertTrue(connection.closed, "the session ends with its cursor")
        pool = db_connect("postgres")._Connection__pool
        self.assertFalse(any(connection is entry for entry in pool._connections))

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
