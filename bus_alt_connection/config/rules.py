# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Values that libpq takes, or takes until it connects, and that cannot work."""

from __future__ import annotations

import re
import socket
from typing import Callable, NamedTuple

from psycopg2.extensions import encodings


class Rule(NamedTuple):
    """What the values of some keywords of libpq have to be."""

    keywords: str  # a pattern
    is_good: Callable[[str], object]
    allowed: str


def allowed_instead(keyword: str, text: str) -> str:
    """Return what is allowed for a keyword where this value of it cannot work; else nothing."""
    for rule in RULES:
        if re.fullmatch(rule.keywords, keyword) and not rule.is_good(text):
            return rule.allowed
    return ""


def _matches(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.IGNORECASE).fullmatch


def _are_addresses(text: str) -> bool:
    """Tell whether libpq takes them for addresses; an empty one stands for the host's name."""
    try:
        for address in filter(None, text.split(",")):
            # which interfaces there are (the part after %) may be another thing later
            socket.getaddrinfo(address.partition("%")[0], None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _is_encoding(text: str) -> bool:
    """Tell whether PostgreSQL and psycopg2 know an encoding, however it is written."""
    known = {_plain(name) for name in encodings}
    return text == "auto" or _plain(text) in known  # auto: as the locale says


def _plain(encoding: str) -> str:
    return re.sub("[^a-z0-9]", "", encoding.lower()).replace("windows", "win")


RULES = (
    # an old libpq reads a number as far as it goes
    Rule(
        "port",
        _matches("[0-9]+(,[0-9]*)*"),
        "1 to 65535; one, or one per host, separated by commas",
    ),
    # libpq reads these only once it has connected
    Rule(
        "connect_timeout|tcp_user_timeout|keepalives(_idle|_interval|_count)?",
        _matches("[0-9]+"),
        "a whole number",
    ),
    Rule("hostaddr", _are_addresses, "IP addresses; a name is for imdispatcher_db_host"),
    Rule("client_encoding", _is_encoding, "an encoding of PostgreSQL, such as UTF8"),
    Rule(
        "target_session_attrs",
        _matches("(?!(standby|prefer-standby|read-only)$).*"),
        "read-write, primary or any: a standby takes no LISTEN",
    ),
    Rule(
        "replication",
        _matches("false|off|no|0"),
        "nothing: a session for replication is not for LISTEN",
    ),
)
