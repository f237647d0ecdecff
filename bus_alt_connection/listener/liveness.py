# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Is it proven that notifications arrive? Decides only: the caller acts, and passes ``now`` in.

A probe is a NOTIFY on the pooled connection that has to be received on the direct one. Nothing else
finds everything: a dead peer, a deaf one, another server, an old primary, a pooler.

All listeners in the same database hear each other's probes. A session that is proven sends its
own only after a silence, but at least every 45 to 60 s.
"""

from __future__ import annotations

import enum
import random
from typing import Collection

from ..config.timing import NEVER, Timing


class Action(enum.Enum):
    """What there is to do."""

    SEND = "send a probe"
    RECONNECT = "close the session: it does not receive"


class Liveness:
    """What is known of one session after the other, and what to do about it.

    :param uniform: draws a number from a range
    """

    def __init__(self, timing: Timing, uniform=random.uniform):
        self._timing, self._uniform = timing, uniform
        self._listening = self.proven = False
        self._payload: str | None = None  # of the probe that is on its way
        self._sent_at = 0.0
        self._deadline = NEVER  # by which it has to be received
        self._due = NEVER  # the next probe
        self._own_due = NEVER  # the next one that is needed even where others send theirs

    # --- what happened ------------------------------------------------------------

    def listening(self, now: float) -> None:
        """A session listens, or listens on more channels: it has to be proven from the start."""
        self._listening, self.proven = True, False
        self._payload, self._due = None, now

    def lost(self, now: float, probing: bool) -> None:
        """There is no session any more.

        :param probing: send probes all the same, to learn whether the pooled connection works
        """
        if not probing:
            self._payload, self._due = None, NEVER
        elif self._listening or self._due == NEVER:  # else the next one is planned already
            self._payload, self._due = None, now + self._uniform(*self._timing.probe_retry_early)
        self._listening = self.proven = False

    def sending(self, now: float, payload: str) -> None:
        """A probe with this payload is on its way."""
        self._payload, self._sent_at, self._deadline = payload, now, NEVER

    def sent(self, now: float) -> None:
        """PostgreSQL has taken the probe."""
        if self._payload and self._listening:
            self._deadline = now + self._timing.probe_timeout
        elif self._payload:
            self._schedule(now, self._timing.probe_retry)

    def not_sent(self, now: float, early: bool) -> None:
        """PostgreSQL was not reached: it is unknown whether the probe would have arrived.

        :param early: something may have been missed, and waits for the pooled connection
        """
        self.proven = False
        self._schedule(now, self._timing.probe_retry_early if early else self._timing.probe_retry)

    def received(self, now: float, payloads: Collection[str]) -> float | None:
        """Something arrived in the session; return the seconds that the own probe took, if any.

        Once a session has received its own probe, whatever arrives keeps it proven.
        """
        own = self._payload is not None and self._payload in payloads
        if own:
            self.proven = True
            self._own_due = now + self._uniform(*self._timing.probe_interval)
        if own or (self.proven and self._payload is None):
            self._schedule(now, self._timing.probe_after_silence)
        return now - self._sent_at if own else None

    def _schedule(self, now: float, delay: tuple[float, float]) -> None:
        self._payload, self._due = None, now + self._uniform(*delay)
        if self.proven:
            self._due = min(self._due, self._own_due)

    # --- what to do ---------------------------------------------------------------

    def next_action(self, now: float) -> Action | None:
        """Return what there is to do now, if anything."""
        if now < self.next_due():
            return None
        return Action.SEND if self._payload is None else Action.RECONNECT

    def next_due(self) -> float:
        """Return when there is something to do again, if nothing happens before."""
        return self._due if self._payload is None else self._deadline
