"""Which errors are about the statement itself."""

import types

import psycopg2
import pytest

from bus_alt_connection.outbox.session import NotifySession


@pytest.mark.parametrize(
    "error, permanent",
    [
        (TypeError("not all arguments converted"), True),
        (psycopg2.OperationalError("server closed the connection"), False),
        (OSError(104, "Connection reset by peer"), False),
        (MemoryError(), False),
    ],
    ids=repr,
)
def test_is_permanent(error, permanent):
    session = types.SimpleNamespace(connection=types.SimpleNamespace(closed=0))
    assert NotifySession.is_permanent(session, error) is permanent
