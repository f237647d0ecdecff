# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Who missed something, asked of a real database."""

import contextlib
import json
import time
from concurrent.futures import Future

from odoo.sql_db import db_connect
from odoo.tests import common, tagged

from odoo.addons.bus_alt_connection.config.timing import (
    MISSED_MARGIN,
    MISSED_STATEMENT_TIMEOUT_MS,
    MISSED_TIMEOUT,
)
from odoo.addons.bus_alt_connection.integration.bus import BusInbox
from odoo.addons.bus_alt_connection.integration.resolve import resolve
from odoo.addons.bus_alt_connection.listener.catch_up import CatchUp


@tagged("post_install", "-at_install")
class TestMissed(common.TransactionCase):
    def setUp(self):
        super().setUp()
        self.database = self.env.cr.dbname
        self.inbox = BusInbox(resolve().found["bus"])
        self.addCleanup(self.inbox.close)
        self.subscriptions = {self.channel(name): {name} for name in ("recent", "old", "other")}
        self.patch(self.inbox, "_subscriptions", lambda: self.subscriptions)
        self.addCleanup(self.execute, "DELETE FROM bus_bus WHERE message = 'test_missed'")

    def channel(self, name):
        return (self.database, name)

    def execute(self, query, params=()):
        """Run a query in a transaction of its own, and commit it."""
        with db_connect(self.database).cursor() as cr:
            cr.execute(query, params)

    def insert(self, channel, age=0.0):
        self.execute(
            "INSERT INTO bus_bus (channel, message, create_date)"
            " VALUES (%s, 'test_missed', now() AT TIME ZONE 'UTC' - %s * interval '1 second')",
            [json.dumps(channel, separators=(",", ":")), age],
        )

    def missed(self, age=10.0):
        return self.told(self.inbox.find_missed(age))

    def told(self, batches):
        return [channel[-1] for (payload,) in batches for channel in json.loads(payload)]

    def test_those_with_a_recent_message_and_once(self):
        self.insert(self.channel("old"), 10.0 + MISSED_MARGIN + 60)
        self.insert(self.channel("recent"), 10.0 + MISSED_MARGIN - 60)
        self.insert(self.channel("nobody is subscribed"))
        found = self.inbox.find_missed(10.0)
        self.assertEqual(self.told(found), ["recent"])
        everybody = self.told(self.inbox.catch_up_payloads(found))
        self.assertEqual(set(everybody), {"old", "other"}, "the others, but not once more")
        self.assertEqual(self.missed(), [])
        self.insert(self.channel("recent"))
        self.assertEqual(self.missed(), ["recent"])
        self.assertEqual(self.missed(), [])
        everybody = self.told(self.inbox.catch_up_payloads())
        self.assertEqual(set(everybody), {"recent", "old", "other"})

    def test_a_channel_that_is_a_text(self):
        """14.0 and 15.0 have them; that database is then known by another channel."""
        self.subscriptions["uuid"] = {"visitor"}
        self.insert("uuid")
        self.assertEqual(self.inbox.find_missed(10.0), [['["uuid"]']])

    def test_the_newest_first(self):
        self.insert(self.channel("other"))
        self.insert(self.channel("recent"))
        self.assertEqual(self.missed(), ["recent", "other"])

    def test_a_table_that_is_locked_holds_it_up_for_a_second(self):
        self.insert(self.channel("recent"))
        begin = time.monotonic()
        with contextlib.closing(db_connect(self.database).cursor()) as cr:
            cr.execute("LOCK TABLE bus_bus IN ACCESS EXCLUSIVE MODE")
            self.assertEqual(self.missed(), [])
        self.assertLess(time.monotonic() - begin, MISSED_STATEMENT_TIMEOUT_MS / 1000 + 2)
        self.assertEqual(self.missed(), ["recent"], "the next search finds it")

    def test_a_search_that_ends_late_leaves_none_out_of_the_next_round(self):
        """Who is left out of a round was told by the search that this round has waited for."""
        started, told = [], []

        def start(_name, function):
            started.append((Future(), function))
            return started[-1][0]

        catch_up = CatchUp(lambda first, last: first, start=start)
        self.inbox.use_pool = None  # else each batch waits for it
        self.inbox.deliver = lambda payloads: told.extend(self.told([payloads]))
        for outage in (100.0, 200.0):
            self.insert(self.channel("recent"))
            catch_up.schedule(outage, [self.inbox])
            catch_up.deliver_due(outage + MISSED_TIMEOUT + 0.1)
            self.assertEqual(set(told), {"recent", "old", "other"}, outage)
            future, find = started.pop()
            future.set_result(find())
            catch_up.deliver_due(outage + 10.0)
            self.assertEqual(told[-1], "recent")
            told.clear()

    def test_no_other_database_is_connected_to(self):
        self.subscriptions = {("template1", "recent"): {1}}
        self.assertEqual(self.inbox._databases(), [])
        self.inbox.use_pool()
