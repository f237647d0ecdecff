# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Catching up: what a listener is told once it hears again.

Odoo's own loops then look into the database for what came while nobody heard it. Nothing
leaves this process.
"""

import importlib
import json
import random
from typing import List, Mapping

from . import seams

# Each channel makes Odoo query for the websockets that are subscribed to it. A batch every
# 0.1 s is 200 queries a second: thousands of websockets do not empty Odoo's pool.
BATCH = 20
PERIOD = 0.1  # seconds
JITTER = 0.3  # seconds until the first batch, at most


def batches(row: seams.Listener) -> List[List[str]]:
    """Return the payloads that make this listener look at all that it serves."""
    if row.subscriptions:
        target = importlib.import_module(row.module)
        for name in row.subscriptions.split("."):
            target = getattr(target, name)
        return in_batches(everybody(target))
    return [databases()]


def everybody(subscriptions: Mapping) -> list:
    """Return channels that reach every subscriber, few of them more than once.

    A subscriber that is woken looks at all of its channels. So a channel counts only where
    it reaches somebody whom channels with fewer subscribers do not, in any order else.

    :param subscriptions: maps each channel to the set of its subscribers (14.0 to 19.0) or
        to something else, which then stands for one subscriber (after 19.0)
    """
    reached: set = set()
    found = []
    everything = [
        (set(value) if isinstance(value, (set, frozenset)) else {id(value)}, channel)
        for channel, value in list(subscriptions.items())
    ]
    random.shuffle(everything)
    for subscribers, channel in sorted(everything, key=lambda entry: len(entry[0])):
        if not subscribers <= reached:
            reached |= subscribers
            found.append(channel)
    return found


def in_batches(channels: list) -> List[List[str]]:
    """Return notifications of the bus that name all these channels, in batches."""
    return [[json.dumps(channels[i : i + BATCH])] for i in range(0, len(channels), BATCH)]


def databases() -> List[str]:
    """Return the databases whose jobs a cron worker looks after, as Odoo lists them."""
    server = importlib.import_module("odoo.service.server")
    # where Odoo has no such function, a cron worker looks at all whatever it is told
    return list(getattr(server, "cron_database_list", list)())
