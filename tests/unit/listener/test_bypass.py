"""What of a statement is noticed on an ordinary cursor of Odoo's."""

import types

import pytest

from bus_alt_connection.listener.bypass import Bypass


@pytest.mark.parametrize("query", ["LISTEN imbus", 'listen "imbus"', "  Listen imbus;"])
def test_a_listen_is_logged_once(query, caplog):
    bypass = Bypass("postgres", is_direct=lambda cursor: False)
    for _time in range(2):
        bypass.look_at(types.SimpleNamespace(dbname="postgres"), query)
    assert bypass.listens == {"imbus"}
    assert caplog.text.count("LISTEN imbus went to an ordinary connection") == 1


def test_nothing_is_said_of_a_direct_cursor_or_of_other_statements(caplog):
    cursor = types.SimpleNamespace(dbname="postgres")
    Bypass("postgres", is_direct=lambda cursor: True).look_at(cursor, "LISTEN imbus")
    bypass = Bypass("postgres", is_direct=lambda cursor: False)
    bypass.look_at(cursor, "SELECT 1")
    bypass.look_at(types.SimpleNamespace(dbname="odoo"), "SELECT 'notify imbus'")
    assert not bypass.listens and not caplog.text
