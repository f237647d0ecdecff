"""The pooler of this run does what it is set up for, before any Odoo is behind it.

``./run matrix`` runs this first on each of its rows, and shows what ``record_property`` notes.
"""

import contextlib
import re

import psycopg2
import pytest

from bus_alt_connection.buscheck import checks
from bus_alt_connection.buscheck.finding import Mark

from ..stack import poolers
from .conftest import settings_of

pytestmark = [pytest.mark.smoke, pytest.mark.slow]

BACKEND = "SELECT pg_backend_pid()"


@contextlib.contextmanager
def client(servers):
    """A plain client, whose cursor ends its transaction with each statement."""
    connection = psycopg2.connect(**servers.pooled._asdict(), dbname="postgres")
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def asked(cursor, query: str):
    cursor.execute(query)
    return cursor.fetchone()[0]


def test_two_clients_in_turn(servers, record_property):
    record_property("pooler", servers.pgbouncer.version())
    ((version,),) = servers.postgres.execute("SHOW server_version")
    record_property("postgresql", version.split()[0])
    with client(servers) as one, client(servers) as other:
        before = asked(one, BACKEND)
        other.execute("BEGIN")
        others = asked(other, BACKEND)
        after = asked(one, BACKEND)
        other.execute("ROLLBACK")
    assert after != others
    # in transaction mode the second gets what the first does not need
    assert (before == others) is (poolers.MODE == "transaction")


def test_what_buscheck_calls_it(servers, record_property):
    first, *others = checks.run(settings_of(servers))
    record_property("buscheck", re.sub(r"^.*:\d+ ", "", first.text))
    assert (checks.TRANSACTION_POOLER in first.text) is (poolers.MODE == "transaction")
    assert not [finding.text for finding in (first, *others) if finding.mark is Mark.FAILED]
