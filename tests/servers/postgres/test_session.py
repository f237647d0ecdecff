"""Addresses, and waits that end."""

import contextlib
import socket
import threading
import time

import psycopg2
import pytest

from bus_alt_connection.postgres import hosts
from bus_alt_connection.postgres.hosts import PrimaryUnavailable, resolve_hosts
from bus_alt_connection.postgres.session import Session
from bus_alt_connection.postgres.wakeup import Stopped, Wakeup

from ...stack.process import free_port

NAME = {"application_name": "test-{pid}"}


@pytest.fixture
def wakeup():
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def test_each_host_gets_its_address_and_its_port():
    given = {"host": "127.0.0.1,127.0.0.2", "port": "1,2", "user": "u"}
    assert resolve_hosts(given, 5) == {**given, "hostaddr": "127.0.0.1,127.0.0.2"}
    assert resolve_hosts(given, 5, rotation=1) == {
        "host": "127.0.0.2,127.0.0.1",
        "port": "2,1",
        "user": "u",
        "hostaddr": "127.0.0.2,127.0.0.1",
    }
    assert resolve_hosts(given, 5, rotation=2) == resolve_hosts(given, 5)


def test_one_port_serves_all_hosts():
    assert resolve_hosts({"host": "127.0.0.1,::1", "port": "5"}, 5)["port"] == "5,5"


def test_an_address_costs_no_thread():
    """Each thread reserves 64 MB of a worker's address space, which Odoo counts."""
    resolve_hosts({"host": "127.0.0.9,::1,/run/postgresql"}, 5)
    assert not {"127.0.0.9", "::1", "/run/postgresql"} & hosts._pending_lookups.keys()


def test_addresses_keep_the_names_for_certificates():
    given = {"host": "a.example,b.example", "hostaddr": "127.0.0.1,127.0.0.2"}
    assert resolve_hosts(given, 5) == given


@pytest.mark.parametrize("host", ["/run/postgresql", "@abstract"])
def test_a_socket_is_left_as_it_is(host):
    assert resolve_hosts({"host": host, "port": "5432"}, 5) == {"host": host, "port": "5432"}


def test_a_socket_beside_a_host():
    both = resolve_hosts({"host": "/run/postgresql,127.0.0.1"}, 5)
    assert both == {"host": "/run/postgresql,127.0.0.1", "hostaddr": ",127.0.0.1"}


def test_without_a_host_libpq_decides():
    assert resolve_hosts({"service": "odoo"}, 5) == {"service": "odoo"}


def test_a_name_that_nobody_knows():
    with pytest.raises(
        PrimaryUnavailable, match=r"host 'no\.such\.host\.invalid' cannot be resolved"
    ):
        resolve_hosts({"host": "no.such.host.invalid"}, 5)
    both = resolve_hosts({"host": "no.such.host.invalid,127.0.0.1"}, 5)
    assert both["hostaddr"] == "127.0.0.1"


def test_nobody_is_there(wakeup):
    with pytest.raises(PrimaryUnavailable, match="refused"):
        Session({**NAME, "host": "127.0.0.1", "port": str(free_port())}, 5, wakeup)


def test_somebody_who_never_answers(wakeup):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = {**NAME, "host": "127.0.0.1", "port": str(server.getsockname()[1])}
        with pytest.raises(psycopg2.OperationalError, match=r"no answer within 0\.5 s") as caught:
            Session(place, 0.5, wakeup)
        assert not isinstance(caught.value, PrimaryUnavailable)


def test_a_server_that_drops_the_first_packet(wakeup):
    """Nobody was reached, however often something else is done meanwhile."""
    calls = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # a full queue drops what comes next
        for _connection in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.2)
        place = {**NAME, "host": "127.0.0.1", "port": str(server.getsockname()[1])}
        with pytest.raises(PrimaryUnavailable, match="no answer within 1 s"):
            Session(place, 1, wakeup, on_wait=lambda: calls.append(True))
    assert len(calls) >= 2


def test_a_wait_is_interrupted(wakeup):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = {**NAME, "host": "127.0.0.1", "port": str(server.getsockname()[1])}
        threading.Timer(0.2, wakeup.stop).start()
        begin = time.monotonic()
        with pytest.raises(Stopped):
            Session(place, 60, wakeup)
        assert time.monotonic() - begin < 30


def test_a_gateway_that_hangs_up_at_once(wakeup):
    """HAProxy without a server: nobody is there, so asking again soon costs nobody anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            with contextlib.suppress(OSError):
                server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        place = {**NAME, "host": "127.0.0.1", "port": str(server.getsockname()[1])}
        with pytest.raises(PrimaryUnavailable):
            Session(place, 5, wakeup)


@pytest.mark.parametrize("host", ["pg..example.com", "x" * 64 + ".example.com"])
def test_a_name_that_no_host_can_have(host):
    with pytest.raises(PrimaryUnavailable, match="cannot be resolved"):
        resolve_hosts({"host": host}, 5)
