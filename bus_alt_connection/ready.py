# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/ready``: do the listeners of this process hear?

Answered before Odoo looks for a session or a database, so that it works while PostgreSQL
is down.
"""

import functools
import json
import logging
import threading
import time
from typing import Callable, List

from .state import DEAF, LISTENING, STARTING, UNKNOWN, State
from .times import Times

PATH = "/bus_alt_connection/ready"

# what werkzeug and gevent write for each request (odoo/service/server.py)
ACCESS_LOGS = ("werkzeug", "longpolling")


def answering(stock, process, start_bus: Callable[[], List[str]]):
    """Return Odoo's WSGI entry point with the answer to ``PATH`` before it.

    :param process: what the addon has in this process (``hooks.Process``)
    :param start_bus: lets Odoo's dispatcher listen; returns the channels on which it will
    """
    for name in ACCESS_LOGS:
        logging.getLogger(name).addFilter(lambda record: PATH not in record.getMessage())
    lock = threading.Lock()
    expected = None

    @functools.wraps(stock)
    def entry(self, environ, start_response):
        nonlocal expected
        if expected is None:
            # Odoo starts its dispatcher with the first subscription, but whoever asks wants to
            # know before
            with lock:
                expected = start_bus() if expected is None else expected
        if environ.get("PATH_INFO") != PATH:
            return stock(self, environ, start_response)
        ready, body = report(process, expected)
        content = json.dumps(body).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        headers.append(("Cache-Control", "no-store"))
        start_response("200 OK" if ready else "503 Service Unavailable", headers)
        return [content]

    return entry


def report(process, expected: list) -> tuple:
    """Return whether the listeners of this process hear, and what is said of them.

    :param expected: channels on which it has to listen
    """
    listener = process.listener
    state = listener.state if listener and listener.is_alive() else State(Times())
    channels = state.channels.split(", ") if state.channels else []
    ago = None if state.proven is None else round(time.monotonic() - state.proven, 1)
    listeners = []
    for channel in sorted({*channels, *expected, *process.astray}):
        name = state.name if channel in channels else STARTING
        name = DEAF if channel in process.astray else name
        listeners.append({"channel": channel, "state": name, "proven_seconds_ago": ago})
    ready = all(said["state"] in (LISTENING, UNKNOWN) for said in listeners)
    return ready, {"ready": ready, "listeners": listeners}
