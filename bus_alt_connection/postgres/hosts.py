# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Names of hosts to addresses: libpq would wait for a name server without any limit."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import time
from concurrent.futures import Future, wait
from typing import Callable, Iterable, Mapping

import psycopg2

from ..config.timing import POLL_INTERVAL
from .background import in_background

KEYS = ("host", "hostaddr", "port")


class PrimaryUnavailable(psycopg2.OperationalError):
    """No primary was reached: trying again soon costs no server anything."""


# by name; while the name server is silent, one thread waits for it, not one per attempt
_pending_lookups: dict[str, Future] = {}

# the threads stay behind in the parent: their answers never come in a forked process
os.register_at_fork(after_in_child=_pending_lookups.clear)


def resolve_hosts(
    parameters: Mapping[str, str],
    timeout: float | None,
    rotation: int = 0,
    on_wait: Callable[[], object] | None = None,
) -> dict[str, str]:
    """Return libpq's parameters with an address for each name of a host.

    libpq tries one after the other, until one takes the connection.

    :param timeout: of the wait for all names together, seconds; None: they are looked up in this
        thread, as libpq does, without a limit. Another thread reserves 72 MB, which
        ``limit_memory_soft`` counts
    :param rotation: which address comes first, counted from 0, over and over: a dead one may use up
        the time that all of them have
    :param on_wait: called some times a second while a name server does not answer; what it
        raises ends the wait
    :raises PrimaryUnavailable: where no name of a host is known
    """
    hosts, given, ports = (parameters.get(key, "").split(",") for key in KEYS)
    are_given = any(given)
    names = [] if are_given else [host for host in hosts if _is_name(host)]
    look_up = _getaddrinfo if timeout is None else _look_up_in_time(names, timeout, on_wait)
    addresses, errors = [], []
    for i in range(max(len(hosts), len(given))):
        host, port = hosts[i % len(hosts)], ports[i % len(ports)]
        if host not in names:
            addresses.append((host, given[i] if are_given else _address(host), port))
            continue
        try:
            addresses += [(host, address, port) for address in look_up(host)]
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            errors.append(f"host {host!r} cannot be resolved: {why}")
    if not addresses:
        raise PrimaryUnavailable("; ".join(errors))
    rotation %= len(addresses)
    columns = zip(*addresses[rotation:], *addresses[:rotation])
    lists = dict(zip(KEYS, map(",".join, columns)))
    return {**parameters, **{key: text for key, text in lists.items() if text.strip(",")}}


def _address(host: str) -> str:
    """Return the host where it is an address; else libpq's own default, or a socket."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _is_name(host: str) -> bool:
    return bool(host) and not host.startswith(("/", "@")) and not _address(host)


def _look_up(name: str) -> Future:
    lookup = _pending_lookups.get(name)
    if lookup is None or lookup.done():
        # a thread, since nothing ends getaddrinfo
        lookup = in_background("lookup", functools.partial(_getaddrinfo, name))
        _pending_lookups[name] = lookup
    return lookup


def _getaddrinfo(name: str) -> list[str]:
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _look_up_in_time(
    names: Iterable[str], timeout: float, on_wait: Callable[[], object] | None
) -> Callable[[str], list[str]]:
    """Return a function that returns the addresses of each of these names, or raises the error."""
    lookups, deadline = {name: _look_up(name) for name in names}, time.monotonic() + timeout
    for lookup in lookups.values():
        while not lookup.done() and time.monotonic() < deadline:
            wait([lookup], min(POLL_INTERVAL, timeout))
            if on_wait:
                on_wait()

    def answer(name: str) -> list[str]:
        if not lookups[name].done():
            raise OSError(f"the name server did not answer within {timeout:g} s")
        return lookups[name].result()

    return answer
