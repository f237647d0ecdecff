# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A probe: a small NOTIFY on the pooled connection, to be heard on the direct one."""

import secrets
import threading
from typing import Callable, Mapping, Union

from .session import Server, Session

CHANNEL = "bus_alt_connection"
TIMEOUT = 10.0  # seconds, of connecting and of the NOTIFY

# pg_notify is what NOTIFY calls
NOTIFY = "SELECT current_database() FROM pg_notify('{}', '{}')"


class Probe(threading.Thread):
    """One probe, sent as soon as it is made.

    :param parameters: libpq's, of the pooled connection
    :param turn: which of its addresses comes first
    :param done: called at the end, from the probe's own thread
    """

    def __init__(self, parameters: Mapping[str, str], turn: int, done: Callable[[], None]):
        super().__init__(name="bus_alt_connection.probe", daemon=True)
        self.payload = secrets.token_hex(8)
        self.outcome: Union[Server, Exception, None] = None  # who took it, or why nobody did
        self._parameters, self._turn, self._done = parameters, turn, done
        self.start()

    def run(self):
        try:
            with Session(self._parameters, TIMEOUT, turn=self._turn) as session:
                notify = NOTIFY.format(CHANNEL, self.payload)
                self.outcome = Server(*session.run(notify), session.started())
        except Exception as error:  # no probe, no proof: whatever it was, the listener has to know
            self.outcome = error
        self._done()
