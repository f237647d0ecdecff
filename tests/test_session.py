"""Addresses that are tried one by one, and waits that end."""

import contextlib
import socket
import threading
import time

import psycopg2
import pytest

from bus_alt_connection.session import NoPrimary, Session, Stopped, Waker, places

from .stack.process import free_port


@pytest.fixture
def waker():
    waker = Waker()
    yield waker
    waker.close()


def test_each_host_is_a_place_with_its_port():
    found = places(
        {"host": "127.0.0.1,127.0.0.2", "port": "1,2", "user": "u", "target_session_attrs": "any"}
    )
    assert found == [
        {"host": "127.0.0.1", "port": "1", "user": "u", "hostaddr": "127.0.0.1"},
        {"host": "127.0.0.2", "port": "2", "user": "u", "hostaddr": "127.0.0.2"},
    ]


def test_one_port_serves_all_hosts():
    assert [place["port"] for place in places({"host": "127.0.0.1,::1", "port": "5"})] == ["5", "5"]


def test_addresses_keep_the_names_for_certificates():
    found = places({"host": "a.example,b.example", "hostaddr": "127.0.0.1,127.0.0.2"})
    assert found == [
        {"host": "a.example", "hostaddr": "127.0.0.1"},
        {"host": "b.example", "hostaddr": "127.0.0.2"},
    ]


@pytest.mark.parametrize("host", ["/run/postgresql", "@abstract"])
def test_a_socket_is_left_as_it_is(host):
    assert places({"host": host}) == [{"host": host}]


def test_without_a_host_libpq_decides():
    assert places({"service": "odoo"}) == [{"service": "odoo"}]


def test_a_name_that_nobody_knows():
    with pytest.raises(NoPrimary, match=r"host 'no\.such\.host\.invalid' cannot be resolved"):
        places({"host": "no.such.host.invalid"})
    (place,) = places({"host": "no.such.host.invalid,127.0.0.1"})
    assert place["hostaddr"] == "127.0.0.1"


def test_nobody_is_there(waker):
    with pytest.raises(NoPrimary, match="refused"):
        Session({"host": "127.0.0.1", "port": str(free_port())}, waker, 5)


def test_somebody_who_never_answers(waker):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = {"host": "127.0.0.1", "port": str(server.getsockname()[1])}
        with pytest.raises(psycopg2.OperationalError, match=r"no answer within 0\.5 s") as caught:
            Session(place, waker, 0.5)
        assert not isinstance(caught.value, NoPrimary)


def test_a_server_that_drops_the_first_packet(waker):
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
        place = {"host": "127.0.0.1", "port": str(server.getsockname()[1])}
        with pytest.raises(NoPrimary, match="no answer within 4 s"):
            Session(place, waker, 4, lambda: calls.append(True))
    assert len(calls) >= 2


def test_a_wait_is_interrupted(waker):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = {"host": "127.0.0.1", "port": str(server.getsockname()[1])}
        threading.Timer(0.2, waker.stop).start()
        begin = time.monotonic()
        with pytest.raises(Stopped):
            Session(place, waker, 60)
        assert time.monotonic() - begin < 30
