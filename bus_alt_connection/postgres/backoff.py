# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""When to connect again. Decides only: the caller passes ``now`` in, and waits."""

from __future__ import annotations

import random

from ..config.timing import Timing


class Backoff:
    """Delays that double, until a session has listened for a while.

    Each delay is drawn from its upper half ("equal jitter").

    :param uniform: draws a number from a range
    """

    def __init__(self, timing: Timing, uniform=random.uniform):
        self._timing, self._uniform = timing, uniform
        self.reset()

    def reset(self) -> None:
        """Begin with the shortest delay again."""
        self._delay = self._timing.initial_delay
        self._listening_since: float | None = None
        self._outage_since: float | None = None

    def listening(self, now: float) -> None:
        """An attempt led to a session that listens."""
        self._listening_since = now

    def next_attempt_at(self, began: float, now: float, unavailable: bool) -> float:
        """The attempt failed, or its session has ended; return when to begin the next one.

        :param began: when the attempt did
        :param unavailable: no primary was reached, so trying again soon costs no server anything
        """
        timing, since, self._listening_since = self._timing, self._listening_since, None
        if self._outage_since is None or (since and now - since >= timing.stable_after):
            self._delay, self._outage_since = timing.initial_delay, now
        early = unavailable or now - self._outage_since < timing.early
        delay = min(self._delay, timing.max_delay_early if early else timing.max_delay)
        # it also doubles while capped: a primary that breaks and is away in turn is not asked
        # each second
        self._delay = max(self._delay, 2 * delay)
        return began + self._uniform(delay / 2, delay)
