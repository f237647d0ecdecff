# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The state of a process's listener, and its line in the log at each change.

========== ====================================================== =======
state      meaning                                                line
========== ====================================================== =======
starting   not yet known                                          none
listening  a NOTIFY on the pooled connection was received         INFO
unknown    it listens, but the pooled connection took no NOTIFY   WARNING
deaf       notifications are not received                         ERROR
========== ====================================================== =======

At most three problems are logged in a burst, then one per minute. A problem that is held back is
logged when it has lasted a minute.
"""

from __future__ import annotations

import enum
import logging

from ..config.timing import NEVER, Timing
from ..postgres.log import PatientLogger

# operators alert on this name: it does not follow the file's
_logger = PatientLogger(logging.getLogger("odoo.addons.bus_alt_connection.state"))

LOG_BURST = 3

NOT_KNOWN = (
    "%s: unknown whether notifications arrive: listening at %s, but the pooled connection"
    " (Odoo's db_host and db_port) took no NOTIFY: %s"
)


class State(enum.Enum):
    """The states of a listener, as the pages name them."""

    STARTING = "starting"
    LISTENING = "listening"
    UNKNOWN = "unknown"
    DEAF = "deaf"


class Failure(enum.Enum):
    """Why a session, or an attempt to open one, failed; as the metrics name it."""

    LOST = "lost"
    DEAF = "deaf"  # it received nothing, though it was there
    REFUSED = "refused"  # no session could be opened, for another reason than the next
    NOT_THERE = "not_there"  # no primary was reached


class RateLimit:
    """A token bucket: so many at once, then one in each period (seconds)."""

    def __init__(self, burst: int, period: float):
        self._burst, self._period = burst, period
        self._tokens, self._updated = float(burst), 0.0

    def allows(self, now: float) -> bool:
        """Tell whether there may be one now, and count it."""
        earned = (now - self._updated) / self._period
        self._tokens, self._updated = min(self._burst, self._tokens + earned), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ListenerStatus:
    """What is known of one listener; ``now`` is passed in (monotonic seconds).

    :param quiet: log nothing: another process of the server does
    """

    def __init__(self, timing: Timing, quiet: bool = False):
        self._timing, self._quiet = timing, quiet
        self.state = State.STARTING
        self.channels: tuple[str, ...] = ()  # on which it has to listen
        self.where = ""  # the session
        self.reason = ""  # why notifications may not arrive
        self.error: BaseException | None = None  # the error with that reason
        self.proven: float | None = None  # when notifications were last proven to arrive
        self.unknown_since: float | None = None
        self.round_trip: float | None = None  # of the last probe of its own, seconds
        self.reminder = NEVER  # when there is something to log again
        self._deaf_since: float | None = None
        self._heard: set[str] = set()  # channels that are logged as listening
        # whether the log shows the present problem: only then its end is logged, too
        self._logged = not quiet
        self._rate_limit = RateLimit(LOG_BURST, timing.log_interval)

    @property
    def _names(self) -> str:
        return ", ".join(self.channels)

    def mark_starting(self, channels: tuple[str, ...]) -> None:
        """It has to listen on these channels, not proven yet; a deaf one stays deaf."""
        self.channels = channels
        if self.state is State.LISTENING:
            self.state = State.STARTING

    def mark_listening(self, now: float, where: str, round_trip: float | None) -> None:
        """Notifications arrive.

        :param round_trip: how long its own probe took (s); None where something else proved it
        """
        self.where, self.proven = where, now
        self.round_trip = self.round_trip if round_trip is None else round_trip
        if self.state is State.LISTENING and self._heard.issuperset(self.channels):
            return
        text = "listening"
        if self._deaf_since is not None:
            text = f"back after {now - self._deaf_since:.1f} s, listening"
        if self._logged:
            took = 1000 * (round_trip or 0)
            _logger.info("%s: %s at %s, heard after %.0f ms", self._names, text, where, took)
        self._heard.update(self.channels)
        self.state, self.reason, self.error = State.LISTENING, "", None
        self.reminder, self._deaf_since, self._logged = NEVER, None, not self._quiet

    def mark_unknown(self, now: float, where: str, reason: str) -> None:
        """The listener listens, but its probe was not taken."""
        self.where, self.reason, self.error = where, reason, None
        if self.state is not State.UNKNOWN:
            self.state, self.unknown_since = State.UNKNOWN, now
            self._log_problem(now, logging.WARNING, NOT_KNOWN % (self._names, where, reason))

    def mark_deaf(self, now: float, reason: str, error: BaseException | None = None) -> None:
        """Notifications do not arrive: logged once, then each minute until they do."""
        self.reason, self.error = reason, error
        if self.state is not State.DEAF:
            self.state, self._deaf_since = State.DEAF, now
            text = f"{self._names}: deaf: {reason}. Trying again until it hears."
            self._log_problem(now, logging.ERROR, text)

    def _log_problem(self, now: float, level: int, text: str) -> None:
        if self._quiet:
            return
        self._logged = self._rate_limit.allows(now)
        if self._logged:
            _logger.log(level, "%s", text)
        self.reminder = now + self._timing.log_interval
        if self._logged and self.state is State.UNKNOWN:
            self.reminder = NEVER  # it is logged once

    def remind(self, now: float) -> None:
        """Log, once a minute, that nothing is received; and what was not logged before."""
        if now < self.reminder:
            return
        self.reminder, self._logged = now + self._timing.log_interval, True
        if self.state is State.UNKNOWN:
            self.reminder = NEVER
            _logger.warning(NOT_KNOWN, self._names, self.where, self.reason)
        else:
            seconds = now - self._deaf_since
            _logger.warning("%s: still deaf after %.0f s: %s", self._names, seconds, self.reason)
