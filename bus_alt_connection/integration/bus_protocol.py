# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The JSON of Odoo's bus, in its notifications and in its table; nothing here imports Odoo."""

from __future__ import annotations

import json
import logging
import random
from typing import Collection, Mapping

_logger = logging.getLogger("odoo.addons.bus_alt_connection.catchup")

# Each channel makes Odoo query for the websockets that are subscribed to it: so many at once, at
# most, do not empty Odoo's pool.
BATCH = 20

# how many messages a search looks at, from the newest on: there is no index on create_date
NEWEST = 10_000

# create_date is when the transaction began, in UTC; id has the table's only index
MISSED = """
    SELECT id, channel FROM (
        SELECT id, channel, create_date FROM bus_bus ORDER BY id DESC LIMIT %s
    ) AS newest
    WHERE create_date > now() AT TIME ZONE 'UTC' - %s * interval '1 second'
    ORDER BY id DESC
"""

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


def as_subscribed(text: str) -> object:
    """Return the channel that a row of Odoo's table of messages is for, as Odoo keeps it among the
    subscriptions; or None, where it cannot be one.

    :param text: column ``channel`` of ``bus_bus``: JSON, a list where Odoo has a tuple
    """

    def hashable(value):
        return tuple(map(hashable, value)) if isinstance(value, list) else value

    try:
        channel = hashable(json.loads(text))
        hash(channel)
    except UNREADABLE:
        return None
    return channel


def databases_of(subscriptions: Mapping) -> list[str]:
    """Return the databases whose channels are subscribed to: such a channel begins with its name.

    In 14.0 and 15.0 it may also be a text alone.
    """
    names = (
        channel[0] for channel in list(subscriptions) if isinstance(channel, tuple) and channel
    )
    return sorted({name for name in names if isinstance(name, str)})


def covering_channels(subscriptions: Mapping, told: Collection = ()) -> list[str]:
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
    told = set(told)
    for channel, subscribers in subscribers_of:
        if channel in told:
            for subscriber in subscribers:
                channel_of.pop(subscriber, None)
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
