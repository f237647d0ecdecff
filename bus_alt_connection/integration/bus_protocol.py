# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The JSON that Odoo's bus sends in its notifications; nothing here imports Odoo."""

from __future__ import annotations

import json
import logging
import random
from typing import Mapping

_logger = logging.getLogger("odoo.addons.bus_alt_connection.catchup")

# Each channel makes Odoo query for the websockets that are subscribed to it. A batch every
# 0.1 s is 200 queries a second: thousands of websockets do not empty Odoo's pool.
BATCH = 20

UNREADABLE = (TypeError, ValueError, RecursionError)

_logged_errors: set = set()


def _check_orjson_reads(value: object) -> None:
    """Raise one of ``UNREADABLE`` where orjson, which Odoo reads notifications with from 17.0 on,
    would: it takes neither NaN nor a lone surrogate."""
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def is_valid_payload(text: str, nested_channels: bool = False) -> bool:
    """Tell whether Odoo's bus survives this payload, as far as is known.

    Its loops end for 50 s on a payload that they cannot read (``ImDispatch.run``, 14.0 to 19.0),
    and any role of PostgreSQL may NOTIFY.

    :param nested_channels: Odoo takes channels within channels (after 19.0)
    """
    try:
        channels = json.loads(text)
        _check_orjson_reads(channels)
        for channel in channels:
            if not nested_channels:
                hash(tuple(channel) if isinstance(channel, list) else channel)
    except UNREADABLE:
        return False
    return True


def covering_channels(subscriptions: Mapping) -> list[str]:
    """Return channels that reach every subscriber: of each, the one with the fewest others.

    A subscriber that is woken looks at all of its channels. What JSON cannot write is left out,
    with one line in the log: no NOTIFY could name it either.

    :param subscriptions: maps each channel to the set of its subscribers (14.0 to 19.0) or
        to something else, which then stands for one subscriber (after 19.0)
    """
    subscribers_of = [
        (channel, list(value) if isinstance(value, (set, frozenset)) else [id(value)])
        for channel, value in list(subscriptions.items())
        if _is_writable(channel)
    ]
    random.shuffle(subscribers_of)  # where a round is never finished, not always the same wait
    channel_of: dict = {}
    # largest first: the last write, which counts, is then the smallest
    for channel, subscribers in sorted(subscribers_of, key=lambda row: -len(row[1])):
        channel_of.update(dict.fromkeys(subscribers, channel))
    return list(dict.fromkeys(channel_of.values()))


def in_batches(channels: list) -> list[list[str]]:
    """Return notifications of the bus that name all these channels, in batches."""
    return [[json.dumps(channels[i : i + BATCH])] for i in range(0, len(channels), BATCH)]


def _is_writable(channel: object) -> bool:
    try:
        _check_orjson_reads(channel)
    except UNREADABLE as error:
        if type(error) not in _logged_errors:
            _logged_errors.add(type(error))
            _logger.warning("imbus: JSON cannot write the subscription %r: %s", channel, error)
        return False
    return True
