# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Catching up: what a listening function of Odoo is told once it hears again.

Odoo then looks into the database for what came while nobody heard. Nothing leaves this process.
"""

import json
import logging
import random
from collections import deque
from typing import Iterable, List, Mapping

from .times import NEVER

_logger = logging.getLogger(__name__)

# Each channel makes Odoo query for the websockets that are subscribed to it. A batch every
# 0.1 s is 200 queries a second: thousands of websockets do not empty Odoo's pool.
BATCH = 20
PERIOD = 0.1  # seconds
JITTER = 0.3  # seconds until the first batch, at most: other processes catch up too

_warned: set = set()


class CatchUp:
    """What is left to tell, some at a time; the caller tells the time (monotonic seconds).

    :param uniform: draws a number from a range
    """

    def __init__(self, uniform=random.uniform):
        self._uniform, self._due = uniform, 0.0
        self._left: deque = deque()

    def plan(self, now: float, inboxes: Iterable) -> None:
        """Tell these inboxes, and forget what was planned before."""
        self._left.clear()
        for inbox in inboxes:
            inbox.missed = False
            try:
                self._left += [(inbox, payloads) for payloads in inbox.everything()]
            except Exception as error:
                inbox.missed = True  # the next probe tries again
                if type(error) not in _warned:
                    _warned.add(type(error))
                    _logger.exception("%s: what was missed is not looked for", inbox.channel)
        self._due = now + self._uniform(0, JITTER)

    def tell(self, now: float) -> None:
        """Tell what is due, if anything is."""
        if now >= self.next():
            self._due = now + PERIOD
            inbox, payloads = self._left.popleft()
            inbox.deliver(payloads)

    @property
    def busy(self) -> bool:
        """Whether there is something left to tell."""
        return bool(self._left)

    def next(self) -> float:
        """Return when something will be due."""
        return self._due if self._left else NEVER


def everybody(subscriptions: Mapping) -> List[str]:
    """Return channels that reach every subscriber: of each, the one with the fewest others.

    A subscriber that is woken looks at all of its channels. What JSON cannot write is left out,
    with one line in the log: no NOTIFY could name it either.

    :param subscriptions: maps each channel to the set of its subscribers (14.0 to 19.0) or
        to something else, which then stands for one subscriber (after 19.0)
    """
    rooms = [
        (channel, list(value) if isinstance(value, (set, frozenset)) else [id(value)])
        for channel, value in list(subscriptions.items())
        if _is_writable(channel)
    ]
    random.shuffle(rooms)  # where a round is never finished, not always the same wait
    told_by: dict = {}
    for channel, subscribers in sorted(rooms, key=lambda room: len(room[1]), reverse=True):
        told_by.update(dict.fromkeys(subscribers, channel))
    return list(dict.fromkeys(told_by.values()))


def in_batches(channels: list) -> List[List[str]]:
    """Return notifications of the bus that name all these channels, in batches."""
    return [[json.dumps(channels[i : i + BATCH])] for i in range(0, len(channels), BATCH)]


def _is_writable(channel: object) -> bool:
    try:
        # orjson, which Odoo reads it with, takes neither NaN nor half a character
        json.dumps(channel, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        if type(error) not in _warned:
            _warned.add(type(error))
            _logger.warning("imbus: JSON cannot write the subscription %r: %s", channel, error)
        return False
    return True
