# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Is it proven that notifications arrive? Decides only: the caller acts and tells the time.

A probe is a NOTIFY on the pooled connection that has to be heard on the direct one. Nothing else
finds everything: a dead peer, a deaf one, another server, an old primary, a pooler.
"""

import random
from typing import Collection, Optional

from .times import NEVER, Times

# what there is to do
SEND, GIVE_UP = "send a probe", "give the session up: it does not hear"


class Proof:
    """What is known of one session after the other, and what to do about it.

    :param uniform: draws a number from a range
    """

    def __init__(self, times: Times, uniform=random.uniform):
        self._times, self._uniform = times, uniform
        self._listening = self.proven = False
        self._probe: Optional[str] = None  # what the probe that is on its way carries
        self._begun = 0.0
        self._heard_by = NEVER  # or the session is given up
        self._due = self._own_due = NEVER  # the next probe; the next that is needed in any case

    # --- what happened ------------------------------------------------------------

    def listening(self, now: float) -> None:
        """A session listens, or listens on more channels: it has to be proven from the start."""
        self._listening, self.proven = True, False
        self._probe, self._due = None, now

    def lost(self, now: float, probing: bool) -> None:
        """There is no session any more.

        :param probing: send probes all the same, to learn whether the pooled connection works
        """
        if self._listening or self._due == NEVER:
            self._probe, self._due = None, now + self._uniform(*self._times.retry_soon)
        if not probing:
            self._probe, self._due = None, NEVER
        self._listening = self.proven = False

    def sending(self, now: float, probe: str) -> None:
        """A probe with this payload is on its way."""
        self._probe, self._begun, self._heard_by = probe, now, NEVER

    def sent(self, now: float) -> None:
        """PostgreSQL has taken the probe."""
        if self._probe and self._listening:
            self._heard_by = now + self._times.heard_within
        elif self._probe:
            self._next(now, self._times.retry)

    def not_sent(self, now: float, hurry: bool) -> None:
        """PostgreSQL was not reached: nobody knows whether the probe would have been heard.

        :param hurry: something may have been missed, and waits for the pooled connection
        """
        self.proven = False
        self._next(now, self._times.retry_soon if hurry else self._times.retry)

    def heard(self, now: float, payloads: Collection[str]) -> Optional[float]:
        """Something was heard in the session; return the seconds that the own probe took, if any.

        Once a session has heard its own probe, whatever it hears keeps it proven.
        """
        own = self._probe is not None and self._probe in payloads
        if own:
            self.proven, self._own_due = True, now + self._uniform(*self._times.own_probe)
        if own or (self.proven and self._probe is None):
            self._next(now, self._times.silence)
        return now - self._begun if own else None

    def _next(self, now: float, pause) -> None:
        self._probe, self._due = None, now + self._uniform(*pause)
        if self.proven:
            self._due = min(self._due, self._own_due)

    # --- what to do ---------------------------------------------------------------

    def todo(self, now: float) -> Optional[str]:
        """Return what there is to do now: ``SEND``, ``GIVE_UP`` or None."""
        if now < self.next():
            return None
        return SEND if self._probe is None else GIVE_UP

    def next(self) -> float:
        """Return when there is something to do again, if nothing happens before."""
        return self._due if self._probe is None else self._heard_by
