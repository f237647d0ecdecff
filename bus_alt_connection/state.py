# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The state of a process's listener, and its line in the log at each change.

========== ====================================================== =======
state      meaning                                                line
========== ====================================================== =======
starting   not yet known                                          none
listening  a NOTIFY on the pooled connection was heard            INFO
unknown    it listens, but the pooled connection took no NOTIFY   WARNING
deaf       notifications are not heard                            ERROR
========== ====================================================== =======

Three troubles may be said at once, then one a minute; of one that was not said there is a line
once it has lasted a minute.
"""

import logging
from typing import Optional

from .times import NEVER, Times

_logger = logging.getLogger(__name__)

STARTING, LISTENING, UNKNOWN, DEAF = "starting", "listening", "unknown", "deaf"

NOT_KNOWN = (
    "%s: unknown whether notifications arrive: listening at %s, but the pooled connection"
    " (Odoo's db_host and db_port) took no NOTIFY: %s"
)


class State:
    """What is known of one listener; the caller tells the time (monotonic seconds)."""

    def __init__(self, times: Times):
        self._times = times
        self.name = STARTING
        self.channels = ""  # on which it has to listen, as the log names them
        self.where = self.reason = ""  # the session; why notifications may not arrive
        self.proven: Optional[float] = None  # when something proved that they do
        self.round_trip: Optional[float] = None  # of the last probe of its own, seconds
        self.reminder = NEVER  # when there is something to say again
        self._deaf_since: Optional[float] = None
        self._said = True  # there is a line about what is wrong
        self._next_line = -NEVER  # when there may be a line about the next trouble

    def starting(self, channels: str) -> None:
        """It has to listen on these channels, which nothing has proven yet."""
        self.channels = channels
        self.name = STARTING if self.name == LISTENING else self.name

    def listening(self, now: float, where: str, round_trip: Optional[float]) -> None:
        """Notifications arrive; a probe of its own proved it within so many seconds."""
        self.where, self.proven = where, now
        self.round_trip = self.round_trip if round_trip is None else round_trip
        if self.name == LISTENING:
            return
        text = "listening"
        if self._deaf_since is not None:
            text = f"back after {now - self._deaf_since:.1f} s, listening"
        if self._said:
            took = 1000 * (round_trip or 0)
            _logger.info("%s: %s at %s, heard after %.0f ms", self.channels, text, where, took)
        self.name, self.reason, self.reminder = LISTENING, "", NEVER
        self._deaf_since, self._said = None, True

    def unknown(self, now: float, where: str, reason: str) -> None:
        """The listener listens, but nobody can tell whether it would hear."""
        self.where, self.reason = where, reason
        if self.name != UNKNOWN:
            self.name = UNKNOWN
            self._trouble(now, logging.WARNING, NOT_KNOWN % (self.channels, where, reason))

    def deaf(self, now: float, reason: str) -> None:
        """Notifications do not arrive: said once, then each minute until they do."""
        self.reason = reason
        if self.name != DEAF:
            self.name, self._deaf_since = DEAF, now
            text = f"{self.channels}: deaf: {reason}. Trying again until it hears."
            self._trouble(now, logging.ERROR, text)

    def _trouble(self, now: float, level: int, text: str) -> None:
        minute = self._times.reminder
        self._said = now >= self._next_line
        if self._said:
            self._next_line = max(self._next_line, now - 2 * minute) + minute
            _logger.log(level, "%s", text)
        self.reminder = NEVER if self._said and self.name == UNKNOWN else now + minute

    def remind(self, now: float) -> None:
        """Say, once a minute, that nothing is heard; and what was not said before."""
        if now < self.reminder:
            return
        self.reminder, self._said = now + self._times.reminder, True
        if self.name == UNKNOWN:
            self.reminder = NEVER
            _logger.warning(NOT_KNOWN, self.channels, self.where, self.reason)
        else:
            seconds = now - self._deaf_since
            _logger.warning("%s: still deaf after %.0f s: %s", self.channels, seconds, self.reason)
