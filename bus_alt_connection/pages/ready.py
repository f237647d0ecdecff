# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""``GET /bus_alt_connection/ready``: do notifications arrive in this process?"""

from __future__ import annotations

import json
from typing import Collection

from werkzeug.wrappers import Response

from .channels import list_channels

PATH = "/bus_alt_connection/ready"


def respond(runtime, expected: Collection[str]) -> Response:
    """Return the response to a load balancer; parameters as ``list_channels``."""
    channels = list_channels(runtime, expected)
    ready = all(channel.ready for channel in channels)
    status = "200 OK" if ready else "503 Service Unavailable"
    listeners = [channel._asdict() for channel in channels]
    shown = {"ready": ready, "listeners": listeners}
    if runtime.listener:
        shown.update(leads=runtime.listener.leads, followers=runtime.listener.followers)
    content = json.dumps(shown)
    return Response(content, status, content_type="application/json")
