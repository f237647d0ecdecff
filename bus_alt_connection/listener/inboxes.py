# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The inboxes that a listener fills: of its process (``inbox``), of others (``sharing.peer``)."""

from __future__ import annotations

import threading
from typing import Callable, Collection, Iterator, Mapping


class AnyInbox:
    """What a listener knows of an inbox.

    :param channel: that Odoo's function listens on
    :param catch_up_while_deaf: whether Odoo looks for what it missed also while nothing arrives
    """

    is_local = True  # of this process
    server: int | None = None  # number of the Odoo server that it belongs to; None: this one

    def __init__(self, channel: str, catch_up_while_deaf: bool):
        self.channel, self.catch_up_while_deaf = channel, catch_up_while_deaf
        self.needs_catch_up = False  # Odoo has to look, once PostgreSQL has taken another probe
        self.missed_since = 0.0  # monotonic seconds; what was sent before has arrived
        self.on_close: Callable[[AnyInbox], None] | None = None

    def deliver(self, payloads: Collection[str]) -> None:
        """Let Odoo's loop wake and find these payloads."""
        raise NotImplementedError

    def look(self) -> None:
        """Let another process look for what its function of Odoo missed."""
        raise NotImplementedError


class Inboxes:
    """The inboxes that a listener fills; any thread may change which these are."""

    def __init__(self):
        self._lock = threading.Lock()  # guards _all, which is replaced as a whole, and the next two
        self._all: tuple[AnyInbox, ...] = ()
        self._closed = self._joined = False

    def __iter__(self) -> Iterator[AnyInbox]:
        return iter(self._all)

    def add(self, inbox: AnyInbox) -> bool:
        """Add an inbox; return False where it is too late."""
        with self._lock:
            if not self._closed:
                self._all = (*self._all, inbox)
                self._joined = self._joined or (inbox.is_local and inbox.needs_catch_up)
            return not self._closed

    def take_joined(self) -> bool:
        """Tell whether an inbox of this process was added since the last call that has to look."""
        with self._lock:
            joined, self._joined = self._joined, False
        return joined

    def remove(self, inbox: AnyInbox) -> bool:
        """Remove an inbox; return whether none of this process is left: then no other is taken."""
        with self._lock:
            self._all = tuple(kept for kept in self._all if kept is not inbox)
            self._closed = self._closed or not any(kept.is_local for kept in self._all)
            return self._closed

    def close(self) -> list[AnyInbox]:
        """Take no inbox any more, and return those of this process."""
        with self._lock:
            self._closed = True
        return [inbox for inbox in self if inbox.is_local]

    def deliver(self, payloads: Mapping[str, list]) -> None:
        """Deliver to each what has arrived on its channel.

        Other processes come first: once a loop of this process wakes, it competes for the GIL.
        """
        for inbox in sorted(self, key=lambda inbox: inbox.is_local):
            if inbox.channel in payloads:
                inbox.deliver(payloads[inbox.channel])

    def miss(self, since: float) -> None:
        """Note that each may have missed something since a time (monotonic seconds)."""
        for inbox in self:
            if not inbox.needs_catch_up:
                inbox.needs_catch_up, inbox.missed_since = True, since

    def missed(self, channels: Collection[str]) -> list[AnyInbox]:
        """Return those on these channels whose function of Odoo may have missed something."""
        return [inbox for inbox in self if inbox.needs_catch_up and inbox.channel in channels]

    def while_deaf(self) -> list[AnyInbox]:
        """Return those whose function of Odoo has something to do while deaf."""
        return [inbox for inbox in self if inbox.catch_up_while_deaf]

    def remote_count(self) -> int:
        """Return how many are of other processes."""
        return sum(not inbox.is_local for inbox in self)

    def channels(self) -> tuple[str, ...]:
        """Return all channels."""
        return tuple(sorted({inbox.channel for inbox in self}))

    def channels_of(self, server: int | None) -> list[str]:
        """Return the channels of a server's processes; None: of this process's server."""
        return sorted({inbox.channel for inbox in self if inbox.server == server})
