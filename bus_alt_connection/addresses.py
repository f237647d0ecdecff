# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Names of hosts to addresses: libpq would wait for a name server without any limit."""

import ipaddress
import socket
import threading
import time
from typing import Callable, Dict, List, Mapping, Optional

import psycopg2


class NobodyThere(psycopg2.OperationalError):
    """No primary was reached: asking again soon costs no server anything."""


class Lookup(threading.Thread):
    """Asks for the addresses of a name; a thread, since nothing ends ``getaddrinfo``."""

    def __init__(self, name: str):
        super().__init__(name="bus_alt_connection.lookup", daemon=True)
        self.addresses: List[str] = []
        self.error: Optional[Exception] = None
        self._name = name
        try:
            self.start()
        except RuntimeError:  # no thread to be had; none begins while Python 3.12 ends
            self.run()

    def run(self):
        try:
            answers = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as error:  # the second: a label that no host can have
            self.error = error


# by name; while the name server is silent, one thread waits for it, not one per attempt
_lookups: Dict[str, Lookup] = {}


def resolved(
    parameters: Mapping[str, str],
    timeout: float,
    turn: int = 0,
    meanwhile: Callable[[], object] = bool,
) -> Dict[str, str]:
    """Return libpq's parameters with an address for each name of a host.

    libpq tries one after the other, until one takes the connection.

    :param timeout: of the wait for all names together, seconds
    :param turn: which address comes first, counted from 0, over and over: a dead one may use up
        the time that all of them have
    :param meanwhile: called some times a second while a name server does not answer; what it
        raises ends the wait
    :raises NobodyThere: where no name of a host is known
    """
    keys = ("host", "hostaddr", "port")
    hosts, given, ports = (parameters.get(key, "").split(",") for key in keys)
    lookups = {} if given[0] else {host: _lookup(host) for host in hosts if _is_name(host)}
    _wait(lookups.values(), timeout, meanwhile)
    found, errors = [], []
    for i in range(max(len(hosts), len(given))):
        host, port = hosts[i % len(hosts)], ports[i % len(ports)]
        lookup = lookups.get(host)
        if lookup is None:
            found.append((host, given[i] if given[0] else _address(host), port))
        elif lookup.addresses:
            found += [(host, address, port) for address in lookup.addresses]
        else:
            error = lookup.error
            late = f"the name server did not answer within {timeout:g} s"
            why = getattr(error, "strerror", None) or error or late
            errors.append(f"host {host!r} cannot be resolved: {why}")
    if not found:
        raise NobodyThere("; ".join(errors))
    turn %= len(found)
    lists = dict(zip(keys, map(",".join, zip(*found[turn:], *found[:turn]))))
    return {**parameters, **{key: text for key, text in lists.items() if text.strip(",")}}


def _address(host: str) -> str:
    """Return the host where it is an address; else libpq's own default, or a socket."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _is_name(host: str) -> bool:
    return bool(host) and not host.startswith(("/", "@")) and not _address(host)


def _lookup(name: str) -> Lookup:
    lookup = _lookups.get(name)
    if lookup is None or not lookup.is_alive():
        lookup = _lookups[name] = Lookup(name)
    return lookup


def _wait(lookups, timeout: float, meanwhile: Callable[[], object]) -> None:
    deadline = time.monotonic() + timeout
    for lookup in lookups:
        while lookup.is_alive() and time.monotonic() < deadline:
            lookup.join(min(0.1, timeout))
            meanwhile()
