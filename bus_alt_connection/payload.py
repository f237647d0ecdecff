# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What a notification carries: channels of the bus, or a probe."""

import json
import secrets

# A probe looks like a list of channels, of which nobody is subscribed to the only one: every
# Odoo that hears it does nothing.
_NOBODY = '[["bus_alt_connection","'


def probe() -> str:
    """Return a payload that is unlike any other probe's."""
    return f'{_NOBODY}{secrets.token_hex(8)}"]]'


def is_probe(text: str) -> bool:
    """Tell whether a process with this addon sent it, to hear itself."""
    return text.startswith(_NOBODY)


def is_list_of_channels(text: str) -> bool:
    """Tell whether Odoo's bus can read this payload.

    Its loops end for 50 s on any other (``ImDispatch.run``, 14.0 to 19.0), and any role of
    PostgreSQL may NOTIFY.
    """
    try:
        channels = json.loads(text)
        # orjson, which reads it from 17.0 on, takes neither NaN nor half a character
        json.dumps(channels, ensure_ascii=False, allow_nan=False).encode()
        for channel in channels:
            hash(tuple(channel) if isinstance(channel, list) else channel)
    except (ValueError, TypeError, RecursionError):
        return False
    return isinstance(channels, list)
