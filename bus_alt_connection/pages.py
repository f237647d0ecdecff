# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The pages that the addon answers itself, for machines that ask often.

Answered before Odoo looks for a session or a database, so that they work while PostgreSQL
is down.
"""

import logging
import threading
from typing import Callable, List, Mapping, Optional

from werkzeug.wrappers import Response

_logger = logging.getLogger(__name__)

# what writes a line for each request: werkzeug, gevent (odoo/service/server.py), and, after 19.0,
# odoo/http/server.py
ACCESS_LOGS = ("werkzeug", "longpolling", "odoo.http.server")

# is told the channels on which this process has to listen
Page = Callable[[List[str]], Response]

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


class Pages:
    """These pages, before Odoo's WSGI entry point.

    :param pages: by path
    :param start_bus: lets Odoo's dispatcher listen; returns the channels on which it will
    """

    def __init__(self, pages: Mapping[str, Page], start_bus: Callable[[], List[str]]):
        self._pages, self._start_bus = pages, start_bus
        self._expected: Optional[List[str]] = None
        self._quiet, self._lock = Quiet(), threading.Lock()
        for name in ACCESS_LOGS:
            logging.getLogger(name).addFilter(self._quiet)

    def answer(self, stock, application, environ, start_response):
        """Answer a request, or let Odoo answer it."""
        with self._lock:
            if self._expected is None:
                # Odoo starts its dispatcher with the first subscription, but whoever asks wants to
                # know before
                self._expected = self._started()
        self._quiet.answered = False
        page = self._pages.get(environ.get("PATH_INFO"))
        if page is None:
            return stock(application, environ, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            self._quiet.answered = not environ.get("QUERY_STRING")
            answer = page(self._expected)
            answer.headers["Cache-Control"] = "no-store"
        else:
            answer = Response(status="405 Method Not Allowed", headers={"Allow": "GET, HEAD"})
        return answer(environ, start_response)

    def _started(self) -> List[str]:
        try:
            return self._start_bus()
        except Exception as error:
            # the page that was asked for has nothing to do with it
            _logger.error(NOT_STARTED, error)
            return ["imbus"]
