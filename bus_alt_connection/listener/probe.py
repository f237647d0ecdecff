# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""A probe: a small NOTIFY on the pooled connection, to be received on the direct one."""

from __future__ import annotations

import secrets
from concurrent.futures import Future
from typing import Callable, Mapping, NamedTuple

from ..config.timing import PROBE_SEND_TIMEOUT
from ..postgres.background import in_background
from ..postgres.proof import CHANNEL, NOTIFY_SQL
from ..postgres.session import ServerIdentity, Session


class Probe(NamedTuple):
    """A probe on its way."""

    payload: str
    taken: Future  # by a server, whose ``ServerIdentity`` it brings; or the error


def send_probe(
    parameters: Mapping[str, str], rotation: int, on_done: Callable[[], object]
) -> Probe:
    """Send a probe, from a thread of its own.

    :param parameters: libpq's, of the pooled connection
    :param rotation: which of its addresses comes first
    :param on_done: called at the end, from that thread
    """
    payload = secrets.token_hex(8)

    def notify() -> ServerIdentity:
        with Session(parameters, PROBE_SEND_TIMEOUT, rotation=rotation) as session:
            row = session.run(NOTIFY_SQL.format(CHANNEL, payload))
            return ServerIdentity(*row, session.server_start_time())

    taken = in_background("probe", notify)
    taken.add_done_callback(lambda _future: on_done())
    return Probe(payload, taken)
