# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/ready``: do the listeners of this process hear?"""

import json
import time
from typing import Collection, List, NamedTuple, Optional

from werkzeug.wrappers import Response

from .state import DEAF, LISTENING, STARTING, UNKNOWN, State
from .times import TIMES

PATH = "/bus_alt_connection/ready"

STUCK = 90.0  # seconds without a proof, which is due each 11 s: the listener itself hangs


class Channel(NamedTuple):
    """How it stands with one channel, as the page says it."""

    channel: str
    state: str
    proven_seconds_ago: Optional[float]  # since something proved that notifications arrive

    @property
    def ready(self) -> bool:
        """Whether nothing says that notifications do not arrive."""
        return self.state in (LISTENING, UNKNOWN)


def channels(process, expected: Collection[str]) -> List[Channel]:
    """Return how it stands with the channels of this process.

    :param process: what the addon has in this process (``hooks.Process``)
    :param expected: channels on which it has to listen
    """
    listener = process.listener
    state = listener.state if listener and listener.is_alive() else State(TIMES)
    listens_on = state.channels.split(", ") if state.channels else []
    ago = None if state.proven is None else round(time.monotonic() - state.proven, 1)
    stuck = state.name == LISTENING and ago > STUCK
    found = []
    for channel in sorted({*listens_on, *expected, *process.astray}):
        name = state.name if channel in listens_on else STARTING
        name = DEAF if stuck or channel in process.astray else name
        found.append(Channel(channel, name, ago))
    return found


def report(process, expected: Collection[str]) -> Response:
    """Return the answer for a load balancer; parameters as ``channels``."""
    found = channels(process, expected)
    ready = all(one.ready for one in found)
    status = "200 OK" if ready else "503 Service Unavailable"
    content = json.dumps({"ready": ready, "listeners": [one._asdict() for one in found]})
    return Response(content, status, content_type="application/json")
