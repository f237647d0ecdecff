# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Do notifications arrive on each channel of this server, as far as this process knows?"""

from __future__ import annotations

import time
from typing import Collection, NamedTuple

from ..config.timing import DEFAULT_TIMING, STALE_AFTER
from ..listener.status import ListenerStatus, State


class Channel(NamedTuple):
    """The state of one channel, with the names that the page has."""

    channel: str
    state: str
    proven_seconds_ago: float | None  # since something proved that notifications arrive

    @property
    def ready(self) -> bool:
        """Whether nothing shows that notifications do not arrive."""
        return self.state in (State.LISTENING.value, State.UNKNOWN.value)


def _is_stale(status: ListenerStatus, now: float) -> bool:
    """Tell whether there was no proof for so long that none is to be expected."""
    if status.state is State.UNKNOWN and status.proven is None:
        return now - status.unknown_since > STALE_AFTER
    return status.state is State.LISTENING and now - status.proven > STALE_AFTER


def list_channels(runtime, expected: Collection[str]) -> list[Channel]:
    """Return the state of each channel that the processes of this server share a listener for.

    :param runtime: what the addon has in this process (``integration.runtime.Runtime``)
    :param expected: channels on which this process has to listen
    """
    listener, unpatched = runtime.listener, runtime.bypass.listens
    alive = listener and listener.is_alive()
    status = listener.status if alive else ListenerStatus(DEFAULT_TIMING)
    now = time.monotonic()
    age = None if status.proven is None else round(now - status.proven, 1)
    stale = _is_stale(status, now)
    own = listener.channels if alive else ()
    channels = []
    for channel in sorted({*own, *expected, *unpatched}):
        state = status.state if channel in status.channels else State.STARTING
        # another addon may listen there as well
        if stale or (channel in unpatched and channel not in own):
            state = State.DEAF
        channels.append(Channel(channel, state.value, age))
    return channels
