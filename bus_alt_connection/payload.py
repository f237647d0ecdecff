# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Which payloads Odoo's bus may see."""

import json


def is_readable(text: str, nested: bool = False) -> bool:
    """Tell whether Odoo's bus survives this payload, as far as is known.

    Its loops end for 50 s on a payload that they cannot read (``ImDispatch.run``, 14.0 to 19.0),
    and any role of PostgreSQL may NOTIFY.

    :param nested: Odoo takes channels within channels (after 19.0)
    """
    try:
        channels = json.loads(text)
        # orjson, which reads it from 17.0 on, takes neither NaN nor half a character
        json.dumps(channels, ensure_ascii=False, allow_nan=False).encode()
        for channel in channels:
            if not nested:
                hash(tuple(channel) if isinstance(channel, list) else channel)
    except (ValueError, TypeError, RecursionError):
        return False
    return True
