# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The state of a listener, and its line in the log at each change.

========== ==================================================== =======
state      meaning                                              line
========== ==================================================== =======
starting   not yet known                                        none
listening  a notification sent on the normal path was heard     INFO
unknown    it listens, but the normal path took no notification WARNING
deaf       notifications are not heard                          ERROR
========== ==================================================== =======
"""

import logging
import time
from typing import Optional

_logger = logging.getLogger(__name__)

STARTING, LISTENING, UNKNOWN, DEAF = "starting", "listening", "unknown", "deaf"

REMINDER = 60.0  # seconds between two lines about the same loss


class State:
    """What is known of one listener; all times are monotonic seconds."""

    def __init__(self, channel: str):
        self.channel = channel
        self.name = STARTING
        self.reason = ""
        self.where = ""
        self.proven: Optional[float] = None  # when something was heard last
        self._deaf_since: Optional[float] = None
        self.reminder = float("inf")  # when the loss is to be said again

    def listening(self, where: str, round_trip: Optional[float]) -> None:
        """The listener has heard something; at first the probe of its own, after so many s."""
        self.proven = time.monotonic()
        self.where = where
        if self.name == LISTENING:
            return
        back = "listening"
        if self._deaf_since is not None:
            back = f"back after {self.proven - self._deaf_since:.1f} s, listening"
        _logger.info(
            "%s: %s at %s, heard after %.0f ms", self.channel, back, where, 1000 * (round_trip or 0)
        )
        self.name, self.reason, self._deaf_since = LISTENING, "", None
        self.reminder = float("inf")

    def unknown(self, where: str, reason: str) -> None:
        """The listener listens, but nobody can tell whether it would hear."""
        self.where, self.reason = where, reason
        if self.name == UNKNOWN:
            return
        self.name, self.reminder = UNKNOWN, float("inf")
        _logger.warning(
            "%s: unknown whether notifications arrive: listening at %s, but Odoo's own db_host"
            " and db_port took no NOTIFY: %s",
            self.channel,
            where,
            reason,
        )

    def deaf(self, reason: str) -> None:
        """Notifications do not arrive: said once, then each minute until they do."""
        now = time.monotonic()
        self.reason = reason
        if self._deaf_since is None:
            self._deaf_since = now
        if self.name != DEAF:
            self.name, self.reminder = DEAF, now + REMINDER
            _logger.error("%s: deaf: %s. Trying again until it hears.", self.channel, reason)

    def deaf_for(self) -> float:
        """Return for how many seconds nothing has been heard."""
        return 0.0 if self._deaf_since is None else time.monotonic() - self._deaf_since

    def remind(self) -> None:
        """Say again, once a minute, that nothing is heard."""
        now = time.monotonic()
        if now >= self.reminder:
            self.reminder = now + REMINDER
            _logger.warning(
                "%s: still deaf after %.0f s: %s", self.channel, now - self._deaf_since, self.reason
            )
