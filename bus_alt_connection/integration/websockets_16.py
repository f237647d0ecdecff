# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How the dispatcher of 16.0 wakes a websocket.

Odoo's dispatcher asks the selector in which the websocket itself waits whether it was woken
already. In the gevent process a selector serves one greenlet: an event that the dispatcher takes
is missed by the websocket, or seen once too often, and then it waits for ever for a byte that was
read before (``Websocket.trigger_notification_dispatching`` in ``addons/bus/websocket.py``). The
faster notifications come, the sooner. So here the socket is asked instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import termios

NOTHING = bytes(4)  # an int, as FIONREAD fills it in


def wake(_original, websocket) -> None:
    """Wake a websocket, and leave its selector alone."""
    with contextlib.suppress(OSError, ValueError):  # closed a moment ago
        if fcntl.ioctl(websocket._Websocket__notif_sock_r, termios.FIONREAD, NOTHING) == NOTHING:
            websocket._Websocket__notif_sock_w.send(b"\0")
