# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Settings in the environment: ``IMDISPATCHER_DB_HOST``, and the same after ``ODOO_``."""

from __future__ import annotations

import logging
import re
from typing import Mapping

from .values import PREFIX, SECRET, Value

_logger = logging.getLogger("odoo.addons.bus_alt_connection.settings")

FILE = "_file"  # what the names of environment variables with the path of a secret end in

# what Kubernetes sets where a Service is called imdispatcher-db, or alike
KUBERNETES = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT\w*)=|PORT_[0-9]+_(TCP|UDP|SCTP)\w*=|PORT=(tcp|udp|sctp)://).*"
)


def read_environ(environ: Mapping[str, str]) -> dict[str, Value]:
    """Return what is set in the environment, by its name in odoo.conf; nothing is checked.

    :raises InvalidSetting: for a file with a password that cannot be read
    """
    found: dict[str, Value] = {}
    names: dict[str, str] = {}  # of the variables that count, by option
    ignored = []
    # the last counts: ODOO_… is after IMDISPATCHER_…, and a name with _FILE after that without
    for name in sorted(environ):
        match = re.fullmatch(r"(ODOO_)?IMDISPATCHER_(\w+)", name)
        text = environ[name]
        if match and KUBERNETES.fullmatch(f"{match.group(2)}={text}"):
            ignored.append(name)
        elif match and text.strip():
            option = PREFIX + match.group(2).lower()
            if option.endswith(FILE) and SECRET.search(option):
                option = option[: -len(FILE)]
                text = _read_secret(Value(option, text, f"environment variable {name}"))
            if option in found and found[option].text != text:
                other = names[option]
                _logger.warning("%s and %s are both set and differ: %s counts", other, name, name)
            found[option] = Value(option, text, f"environment variable {name}")
            names[option] = name
    if ignored:
        _logger.warning(
            "ignored the environment variables %s: Kubernetes sets them for a Service of this name."
            " enableServiceLinks: false in the pod's spec keeps them away.",
            ", ".join(ignored),
        )
    return found


def _read_secret(path: Value) -> str:
    """Return the text of a file with a password, as images of Odoo take it.

    :raises InvalidSetting: where it cannot be read
    """
    try:
        with open(path.text.strip(), encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise path.invalid(f"a file that can be read ({why})") from None
