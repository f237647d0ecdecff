# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What a leader and its followers tell each other: one JSON text in each packet. No I/O here.

======== ======== ====================================================================
frame    from     says
======== ======== ====================================================================
Hello    follower on which channel, and whether it has missed something already
Missed   follower it could not look at everything yet
Status   leader   its state, its last proof and its counts; the answer to Hello, too
Heard    leader   payloads that arrived on the channel
Look     leader   something was missed: look at everything
======== ======== ====================================================================
"""

from __future__ import annotations

import functools
import json
import re
from typing import NamedTuple, Union

from ..listener.status import State

# bytes of a packet, and of the payloads in it: each has less than 8,000, in JSON up to six times
# as many
MAX_FRAME = 1 << 17
MAX_PAYLOADS = 1 << 16

# what may stand in the leader's LISTEN
CHANNEL_NAME = re.compile(r"[a-z_]{1,63}")


class ProtocolError(Exception):
    """What came is no frame that may come there."""


class Hello(NamedTuple):
    """The first frame of a follower."""

    channel: str
    server: int  # the same for all processes of one Odoo server
    missed: bool  # it has something to look for
    while_deaf: bool  # it looks for what it missed also while nothing arrives
    wants_status: bool


class Missed(NamedTuple):
    """The follower has not looked at everything: tell it again once it may work."""


class Status(NamedTuple):
    """What the leader knows of its session; the times are seconds."""

    state: str
    reason: str
    where: str
    proven_ago: float | None
    round_trip: float | None
    channels: list[str]  # that the processes of the follower's server listen on
    notifications: dict[str, int]  # by channel
    failures: dict[str, int]  # by reason
    followers: int
    server: int


class Heard(NamedTuple):
    """Payloads that arrived."""

    payloads: list[str]


class Look(NamedTuple):
    """Look at everything."""


Frame = Union[Hello, Missed, Status, Heard, Look]

_SECONDS = (int, float, type(None))
_TYPES: dict = {
    Hello: (str, int, bool, bool, bool),
    Missed: (),
    Status: (str, str, str, _SECONDS, _SECONDS, list, dict, dict, int, int),
    Heard: (list,),
    Look: (),
}
_KINDS: dict[str, type] = {kind.__name__: kind for kind in _TYPES}


def encode(frame: Frame) -> bytes:
    """Return a frame as the bytes of one packet."""
    return json.dumps([type(frame).__name__, *frame], separators=(",", ":")).encode()


def decode(data: bytes) -> Frame:
    """Return the frame of a packet.

    :raises ProtocolError: where it is none
    """
    try:
        name, *fields = json.loads(data)
        kind = _KINDS[name]
        types = _TYPES[kind]
        valid = len(fields) == len(types) and all(map(isinstance, fields, types))
        if valid and kind is Hello:
            valid = bool(CHANNEL_NAME.fullmatch(fields[0]))
        elif valid and fields:
            if kind is Status:
                State(fields[0])
            texts = fields[0] if kind is Heard else fields[5]
            valid = all(isinstance(text, str) for text in texts)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError(f"not a frame: {data[:40]!r}") from error
    if not valid:
        raise ProtocolError(f"not a frame: {data[:40]!r}")
    return kind(*fields)


@functools.lru_cache(maxsize=2)  # all followers of a channel get the same
def encode_heard(payloads: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return packets with these payloads, equal ones once, each as large as a packet may be."""
    batches: list[list[str]] = []
    size = MAX_PAYLOADS
    for payload in dict.fromkeys(payloads):
        length = len(json.dumps(payload)) + 1
        size += length
        if size > MAX_PAYLOADS:
            batches.append([])
            size = length
        batches[-1].append(payload)
    return tuple(encode(Heard(batch)) for batch in batches)
