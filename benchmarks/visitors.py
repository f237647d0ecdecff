"""HTTP clients that load pages of an Odoo server at once."""

from __future__ import annotations

import time

import requests

from tests.stack.users import BackgroundThreads


class Visitors(BackgroundThreads):
    """A context in which so many HTTP clients load the login page over and over.

    ``pages`` counts the pages that arrived, ``failed`` the requests without one.
    """

    def __init__(self, url: str, number: int = 20):
        super().__init__(*[self._visit] * number)
        self._url = f"{url}/web/login"
        self.pages = 0
        self.failed = 0

    def _visit(self):
        with requests.Session() as session:
            while not self._stop.is_set():
                try:
                    # without a connection Odoo redirects to the list of databases
                    answer = session.get(self._url, timeout=60, allow_redirects=False)
                    good = answer.status_code == 200
                except requests.RequestException:
                    good = False
                with self._lock:
                    self.pages += good
                    self.failed += not good

    def rate(self, seconds: float) -> float:
        """Return pages per second, measured for so long."""
        before, begin = self.pages, time.monotonic()
        time.sleep(seconds)
        return (self.pages - before) / (time.monotonic() - begin)
