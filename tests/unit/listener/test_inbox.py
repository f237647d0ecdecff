"""What stands where Odoo's loops expect a connection and a cursor."""

import contextlib
import select
import threading

import psycopg2
import pytest

from bus_alt_connection.listener.inbox import ALL_DATABASES, ListenConnection

from ...stack.inboxes import inbox_with


@pytest.fixture
def inbox():
    made = inbox_with("imbus", is_valid=lambda payload: payload != "bad")
    yield made
    made.close()


def test_a_delivery_wakes_and_is_found_once(inbox):
    assert select.select([inbox], [], [], 0)[0] == []
    inbox.deliver(["a", "a", "b", "bad"])
    assert inbox.rejected_count == 1
    inbox.deliver(["a"])
    assert select.select([inbox], [], [], 0)[0] == [inbox]
    inbox.poll()
    assert [(one.channel, one.payload) for one in inbox.notifies] == [
        ("imbus", "a"),
        ("imbus", "b"),
    ]
    assert select.select([inbox], [], [], 0)[0] == []


def test_what_a_loop_did_not_take_does_not_pile_up(inbox):
    """The cron loops of 15.0 to 18.0 only look whether they are woken."""
    for payload in ("a", "b"):
        inbox.deliver([payload])
        inbox.poll()
    assert [one.payload for one in inbox.notifies] == ["b"]


def test_what_is_kept_from_odoo_does_not_wake_it(inbox):
    inbox.deliver(["bad"])
    assert select.select([inbox], [], [], 0)[0] == []


def test_closing_is_told_once(inbox):
    told = []
    inbox.on_close = told.append
    inbox.close()
    inbox.close()
    assert told == [inbox]
    inbox.deliver(["late"])


def test_the_cursor_listens_at_its_first_commit(inbox):
    listening = []

    def listen(one):
        listening.append(one)
        one.on_close = lambda _inbox: None

    with ListenConnection(inbox, listen).cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        assert cursor.fetchone() == (False,)
        cursor.execute("LISTEN imbus")
        assert listening == []
        cursor.commit()
        cursor.commit()
        assert listening == [inbox]
    assert inbox.closed


@pytest.mark.parametrize("query", ["SELECT 1", "LISTEN something_else", "UNLISTEN *"])
def test_a_query_whose_answer_odoo_would_need_is_an_error(inbox, query):
    with pytest.raises(NotImplementedError, match="asks"):
        ListenConnection(inbox, print).execute(query)


def test_databases_are_listed_by_odoos_own_thread():
    """On Odoo's own connections, which may hang: the listener must not."""
    asked = []

    def names():
        asked.append(threading.get_ident())
        return ["db1", "db2"]

    with contextlib.closing(inbox_with("cron_trigger", list_databases=names)) as inbox:
        for payloads in inbox.catch_up_payloads():
            inbox.deliver(["db2", *payloads])
        assert asked == []
        inbox.poll()
        assert {notify.payload for notify in inbox.notifies} == {"db1", "db2"}
        assert asked == [threading.get_ident()]


def test_databases_that_cannot_be_listed_are_still_missed():
    def names():
        raise psycopg2.OperationalError("away")

    with contextlib.closing(inbox_with("cron_trigger", list_databases=names)) as inbox:
        inbox.deliver([ALL_DATABASES])
        inbox.poll()
        assert inbox.notifies == []
        assert inbox.needs_catch_up
