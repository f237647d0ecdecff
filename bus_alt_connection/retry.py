# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""When to connect again. Decides only: the caller tells the time and does the waiting."""

import random
from typing import Optional

from .times import Times


class Retry:
    """Pauses that double, until a session has listened for a minute.

    :param uniform: draws a number from a range
    """

    def __init__(self, times: Times, uniform=random.uniform):
        self._times, self._uniform = times, uniform
        self._pause = times.first_pause
        self._listening_since: Optional[float] = None
        self._trouble_since: Optional[float] = None

    def listening(self, now: float) -> None:
        """An attempt led to a session that listens."""
        self._listening_since = now

    def failed(self, began: float, now: float, nobody_there: bool) -> float:
        """The attempt failed, or its session has ended; return when to begin the next one.

        :param began: when the attempt did
        :param nobody_there: no primary was reached, so retrying soon costs no server anything
        """
        times, since, self._listening_since = self._times, self._listening_since, None
        if self._trouble_since is None or (since and now - since >= times.steady):
            self._pause, self._trouble_since = times.first_pause, now
        short = nobody_there or now - self._trouble_since < times.trouble
        pause = min(self._pause, times.short_pause if short else times.last_pause)
        # a primary that breaks and is away in turn is not asked each second
        self._pause = max(self._pause, 2 * pause)
        return began + self._uniform(pause / 2, pause)
