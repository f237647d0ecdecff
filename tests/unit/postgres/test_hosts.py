"""Names of hosts to addresses, where no thread may look them up."""

import socket
import threading

import pytest

from bus_alt_connection.postgres.hosts import PrimaryUnavailable, resolve_hosts

KNOWN = {"a.example": ["10.0.0.1", "10.0.0.2"], "b.example": ["10.0.0.3"]}


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """A name server that knows these, and no thread to be had."""

    def getaddrinfo(name, *_arguments, **_keywords):
        if name not in KNOWN:
            raise socket.gaierror(-2, "Name or service not known")
        return [(None, None, None, "", (address, 0)) for address in KNOWN[name]]

    def refused(*_arguments, **_keywords):
        raise AssertionError("a thread")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(threading, "Thread", refused)


@pytest.mark.parametrize(
    "given, found",
    [
        (
            {"host": "a.example,b.example", "port": "1,2"},
            {
                "host": "a.example,a.example,b.example",
                "hostaddr": "10.0.0.1,10.0.0.2,10.0.0.3",
                "port": "1,1,2",
            },
        ),
        ({"host": "/run,b.example"}, {"host": "/run,b.example", "hostaddr": ",10.0.0.3"}),
        ({"host": "no.example,b.example"}, {"host": "b.example", "hostaddr": "10.0.0.3"}),
        ({"host": "10.0.0.9"}, {"host": "10.0.0.9", "hostaddr": "10.0.0.9"}),
        ({"service": "shop"}, {"service": "shop"}),
    ],
    ids=["names", "socket", "unknown", "address", "service"],
)
def test_names_are_looked_up_in_this_thread_and_only_once(given, found, monkeypatch):
    assert resolve_hosts(given, None) == found
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert resolve_hosts(found, 1) == found, "as a session does with them"


def test_a_name_that_is_not_known():
    with pytest.raises(PrimaryUnavailable, match=r"'no\.example' cannot be resolved: Name or serv"):
        resolve_hosts({"host": "no.example"}, None)
