# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Names of hosts to addresses: libpq would wait for a name server without any limit."""

import socket
import threading
from typing import Dict, List, Mapping

import psycopg2


class NobodyThere(psycopg2.OperationalError):
    """No primary was reached: asking again soon costs no server anything."""


def resolved(parameters: Mapping[str, str], timeout: float, turn: int = 0) -> Dict[str, str]:
    """Return libpq's parameters with an address for each name of a host.

    libpq tries one after the other, until one takes the connection.

    :param timeout: of the wait for each name, seconds
    :param turn: which address comes first, counted from 0, over and over: a dead one may use up
        the time that all of them have
    :raises NobodyThere: where no name of a host is known
    """
    keys = ("host", "hostaddr", "port")
    hosts, given, ports = (parameters.get(key, "").split(",") for key in keys)
    found, errors = [], []
    for i in range(max(len(hosts), len(given))):
        host, port = hosts[i % len(hosts)], ports[i % len(ports)]
        if given[0]:
            found.append((host, given[i], port))
        elif not host or host.startswith(("/", "@")):  # libpq's own default; a socket
            found.append((host, "", port))
        else:
            try:
                found += [(host, address, port) for address in _ask(host, timeout)]
            except OSError as error:
                errors.append(f"host {host!r} cannot be resolved: {error.strerror or error}")
    if not found:
        raise NobodyThere("; ".join(errors))
    turn %= len(found)
    lists = dict(zip(keys, map(",".join, zip(*found[turn:], *found[:turn]))))
    return {**parameters, **{key: text for key, text in lists.items() if text.strip(",")}}


def _ask(host: str, timeout: float) -> List[str]:
    """Return the IP addresses of a name; a thread asks, since nothing ends getaddrinfo."""
    answers: list = []

    def ask():
        try:
            answers.extend(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=ask, name="bus_alt_connection.resolver", daemon=True)
    try:
        thread.start()
        thread.join(timeout)
    except RuntimeError:  # from 3.12 on Python begins no thread while it ends
        ask()
    if not answers:
        raise OSError(f"the name server did not answer within {timeout:g} s")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return list(dict.fromkeys(answer[4][0] for answer in answers))
