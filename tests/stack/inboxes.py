"""An inbox that does what a test wants it to do."""

from __future__ import annotations

from bus_alt_connection.listener.inbox import Inbox


def inbox_with(channel: str, catch_up_while_deaf: bool = False, **methods) -> Inbox:
    """Return an inbox with these attributes and functions in place of its own."""
    inbox = Inbox(channel, catch_up_while_deaf)
    vars(inbox).update(methods)
    return inbox
