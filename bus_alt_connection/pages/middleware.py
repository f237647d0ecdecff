# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The addon's own pages, for machines that ask often.

They are answered before Odoo looks for a session or a database, so that they work while PostgreSQL
is down.
"""

from __future__ import annotations

import logging
import threading
from typing import Callable, List, Mapping

from werkzeug.wrappers import Response

_logger = logging.getLogger("odoo.addons.bus_alt_connection.pages")

# what writes a line for each request: werkzeug, gevent (odoo/service/server.py), and, after 19.0,
# odoo/http/server.py
ACCESS_LOGS = ("werkzeug", "longpolling", "odoo.http.server")

# is given the channels on which this process has to listen
Page = Callable[[List[str]], Response]

NOT_STARTED = "imbus: the bus is not started yet, but with the first subscription: %r"


class AccessLogFilter(threading.local):
    """Keeps the line about a request that was answered here out of the access log.

    The text of the line is not looked at: it holds what unauthenticated clients send, in another
    form in each log. But the thread or greenlet that answers a request writes its line next.
    """

    answered = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write this line, as ``logging`` asks each filter."""
        drop = self.answered and record.levelno == logging.INFO
        if drop:
            self.answered = False
        return not drop


class Middleware:
    """These pages, before Odoo's WSGI entry point.

    :param pages: by path
    :param start_bus: lets Odoo's dispatcher listen; returns the channels on which it will
    """

    def __init__(self, pages: Mapping[str, Page], start_bus: Callable[[], list[str]]):
        self._pages, self._start_bus = pages, start_bus
        self._lock = threading.Lock()  # guards the next three
        self._expected = ["imbus"]  # it has to hear, even where it cannot be started
        self._started = self._logged = False
        self._filter = AccessLogFilter()
        for name in ACCESS_LOGS:
            logging.getLogger(name).addFilter(self._filter)

    def __call__(self, original, application, environ, start_response):
        """Answer a request, or let Odoo answer it.

        :param original: Odoo's own entry point, a function of ``application``
        """
        with self._lock:
            if not self._started:
                # Odoo starts its dispatcher with the first subscription, but a load balancer wants
                # to know before
                self._start()
        self._filter.answered = False
        page = self._pages.get(environ.get("PATH_INFO"))
        if page is None:
            return original(application, environ, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            self._filter.answered = not environ.get("QUERY_STRING")
            response = page(self._expected)
            response.headers["Cache-Control"] = "no-store"
        else:
            response = Response(status="405 Method Not Allowed", headers={"Allow": "GET, HEAD"})
        return response(environ, start_response)

    def _start(self) -> None:
        try:
            self._expected, self._started = self._start_bus(), True
        except Exception as error:
            # the page that was asked for has nothing to do with it
            if not self._logged:
                _logger.error(NOT_STARTED, error)
            self._logged = True
