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

_logger = logging.getLogger(__name__)

PATH = "/bus_alt_connection/ready"

# what writes a line for each request: werkzeug, gevent (odoo/service/server.py), and, after 19.0,
# odoo/http/server.py
ACCESS_LOGS = ("werkzeug", "longpolling", "odoo.http.server")

STUCK = 90.0  # seconds without a proof, which is due each 11 s: the listener itself hangs

NOT_STARTED = "imbus: the bus is not started yet, but with the first subscription: %r"


class Quiet(threading.local):
    """Keeps the line about a request that was answered here out of the access log.

    The text of the line is not looked at: it holds what strangers send, in another form in each
    log. But the thread or greenlet that answers a request writes its line next.
    """

    answered = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write this line, as ``logging`` asks each filter."""
        about_it = self.answered and record.levelno == logging.INFO
        if about_it:
            self.answered = False
        return not about_it


def answering(stock, process, start_bus: Callable[[], List[str]]):
    """Return Odoo's WSGI entry point with the answer to ``PATH`` before it.

    :param process: what the addon has in this process (``hooks.Process``)
    :param start_bus: lets Odoo's dispatcher listen; returns the channels on which it will
    """
    quiet, lock = Quiet(), threading.Lock()
    for name in ACCESS_LOGS:
        logging.getLogger(name).addFilter(quiet)
    expected = None

    @functools.wraps(stock)
    def entry(self, environ, start_response):
        nonlocal expected
        if expected is None:
            # Odoo starts its dispatcher with the first subscription, but whoever asks wants to
            # know before
            with lock:
                expected = _started(start_bus) if expected is None else expected
        quiet.answered = False
        if environ.get("PATH_INFO") != PATH:
            return stock(self, environ, start_response)
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            headers = [("Allow", "GET, HEAD"), ("Content-Length", "0")]
            start_response("405 Method Not Allowed", headers)
            return []
        quiet.answered = not environ.get("QUERY_STRING")
        ready, body = report(process, expected)
        content = json.dumps(body).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        headers.append(("Cache-Control", "no-store"))
        start_response("200 OK" if ready else "503 Service Unavailable", headers)
        return [content] if method == "GET" else []

    return entry


def _started(start_bus: Callable[[], List[str]]) -> List[str]:
    try:
        return start_bus()
    except Exception as error:
        # the page that was asked for has nothing to do with it
        _logger.error(NOT_STARTED, error)
        return ["imbus"]


def report(process, expected: list) -> tuple:
    """Return whether the listeners of this process hear, and what is said of them.

    :param expected: channels on which it has to listen
    """
    listener = process.listener
    state = listener.state if listener and listener.is_alive() else State(Times())
    channels = state.channels.split(", ") if state.channels else []
    ago = None if state.proven is None else round(time.monotonic() - state.proven, 1)
    stuck = state.name == LISTENING and ago > STUCK
    listeners = []
    for channel in sorted({*channels, *expected, *process.astray}):
        name = state.name if channel in channels else STARTING
        name = DEAF if stuck or channel in process.astray else name
        listeners.append({"channel": channel, "state": name, "proven_seconds_ago": ago})
    ready = all(said["state"] in (LISTENING, UNKNOWN) for said in listeners)
    return ready, {"ready": ready, "listeners": listeners}
