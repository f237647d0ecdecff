# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/ready``: do the listeners of this process hear?

Answered before Odoo looks for a session or a database, so that it works while PostgreSQL
is down.
"""

import functools
import ipaddress
import json
import logging
import threading
import time
from typing import Callable, List, Mapping

from . import state, watch

PATH = "/bus_alt_connection/ready"

# what werkzeug and gevent write for each request (odoo/service/server.py)
ACCESS_LOGS = ("werkzeug", "longpolling")

FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_FORWARDED", "HTTP_X_FORWARDED_HOST")


def answering(stock, start_bus: Callable[[], List[str]]):
    """Return Odoo's WSGI entry point with the answer to ``PATH`` before it.

    :param start_bus: called once, at the first request: Odoo starts its dispatcher with the
        first subscription, but whoever asks wants to know before; returns the channels on
        which this process listens from then on
    """
    for name in ACCESS_LOGS:
        logging.getLogger(name).addFilter(_is_not_ours)
    lock = threading.Lock()
    expected = None

    @functools.wraps(stock)
    def entry(self, environ, start_response):
        nonlocal expected
        if expected is None:
            with lock:
                expected = start_bus() if expected is None else expected
        if environ.get("PATH_INFO") == PATH:
            return _answer(environ, start_response, expected)
        return stock(self, environ, start_response)

    return entry


def _is_not_ours(record: logging.LogRecord) -> bool:
    return PATH not in record.getMessage()


def _answer(environ: Mapping[str, str], start_response, expected: List[str]) -> list:
    verbose = environ.get("QUERY_STRING") == "verbose" and _is_local(environ)
    ready, body = report(expected, verbose)
    content = json.dumps(body).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
    ]
    start_response("200 OK" if ready else "503 Service Unavailable", headers)
    return [content]


def report(expected: List[str], verbose: bool) -> tuple:
    """Return whether the listeners of this process hear, and what is said of them.

    :param expected: channels on which it has to listen
    :param verbose: name hosts and reasons too
    """
    now = time.monotonic()
    listeners = []
    states = [one.state for one in list(watch.running)]
    missing = set(expected) - {one.channel for one in states}
    for one in states + [state.State(channel) for channel in missing]:
        said = {
            "channel": one.channel,
            "state": one.name,
            "proven_seconds_ago": None if one.proven is None else round(now - one.proven, 1),
        }
        if verbose:
            said.update(where=one.where, reason=one.reason)
        listeners.append(said)
    ready = all(said["state"] in (state.LISTENING, state.UNKNOWN) for said in listeners)
    return ready, {"ready": ready, "listeners": listeners}


def _is_local(environ: Mapping[str, str]) -> bool:
    # whoever comes through a proxy on this machine is a stranger all the same
    if any(environ.get(name) for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(environ.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
