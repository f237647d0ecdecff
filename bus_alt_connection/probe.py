# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A probe: a small NOTIFY on the normal path, to be heard on the direct one."""

import threading
import time
from typing import Callable, Mapping, Optional

import psycopg2

from . import payload, session

TIMEOUT = 10.0  # seconds, of connecting and of the NOTIFY


class Probe(threading.Thread):
    """One probe, sent as soon as it is made; its attributes tell how far it is.

    :param path: libpq's parameters of the normal path
    :param channel: of the NOTIFY
    :param done: called at the end, from the probe's own thread
    """

    def __init__(self, path: Mapping[str, str], channel: str, done: Callable[[], None]):
        super().__init__(name=f"bus_alt_connection.probe.{channel}", daemon=True)
        self.payload = payload.probe()
        self.begun: Optional[float] = None  # monotonic seconds, as the next
        self.sent: Optional[float] = None
        self.error: Optional[Exception] = None
        self.heard = False
        self._path = path
        self._channel = channel
        self._done = done
        self.start()

    def run(self):
        waker = session.Waker()
        try:
            self._send(waker)
            self.sent = time.monotonic()
        except (psycopg2.Error, OSError) as error:
            self.error = error
        finally:
            waker.close()
            self._done()

    def _send(self, waker: session.Waker) -> None:
        error = None
        for place in session.places(self._path):
            try:
                with session.Session(place, waker, TIMEOUT) as normal:
                    self.begun = time.monotonic()
                    normal.run(f"NOTIFY {self._channel}, '{self.payload}'")
                return
            except psycopg2.Error as failure:
                error = failure
        raise error
