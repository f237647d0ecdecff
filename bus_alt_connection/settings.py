# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Where is PostgreSQL? The operator's settings, read and checked in this one place.

Each setting has a name in odoo.conf and two in the environment. For ``host``:

* ``IMDISPATCHER_DB_HOST`` or ``ODOO_IMDISPATCHER_DB_HOST`` in the environment, which win;
* ``imdispatcher_db_host`` in odoo.conf.

What is not set comes from the DSN, then from Odoo's own ``db_*`` settings; ``parameters``
puts them together.
"""

import ipaddress
import logging
import re
from typing import Callable, Dict, Mapping, NamedTuple

import psycopg2
from psycopg2.extensions import parse_dsn

_logger = logging.getLogger(__name__)

PREFIX = "imdispatcher_db_"

# "Table 34.1. SSL Mode Descriptions" of the libpq documentation
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

NOT_SHOWN = "(not shown, it may hold a password)"

# whole numbers that libpq reads only once it has connected
NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)


class Value(NamedTuple):
    """What the operator set, and where."""

    text: str
    source: str


class BadSetting(ValueError):
    """A setting with a value that cannot work; its text is one line for the operator."""

    def __init__(self, name: str, value: Value, allowed: str, shown: str = ""):
        super().__init__(
            f"bad setting {OPTIONS[name]} (from {value.source}):"
            f" {shown or repr(value.text)}; allowed: {allowed}"
        )


def _is_host(text: str) -> bool:
    if text.startswith(("/", "@")):  # a socket folder, an abstract socket
        return True
    try:
        ipaddress.ip_address(text.split("%", maxsplit=1)[0])
        return True
    except ValueError:
        return re.fullmatch(r"[\w.-]+", text) is not None


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535


def _are_hosts(text: str) -> bool:
    return all(_is_host(host) for host in text.split(","))


def _are_ports(text: str) -> bool:
    # libpq takes an empty entry of a list for the default port
    ports = text.split(",")
    return all(_is_port(port) or (not port and len(ports) > 1) for port in ports)


SWITCH = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Setting(NamedTuple):
    """One row of the table of settings; README's is made from it."""

    name: str
    meaning: str
    allowed: str
    default: str
    check: Callable[[str], bool]
    prefix: str = PREFIX


SETTINGS = (
    Setting(
        "host",
        "where PostgreSQL itself is",
        "a host name, an IP address or a socket folder; several separated by commas;"
        " the port has a setting of its own",
        "db_host",
        _are_hosts,
    ),
    Setting(
        "port",
        "and its port",
        "1 to 65535; one, or one per host, separated by commas",
        "db_port",
        _are_ports,
    ),
    Setting(
        "name",
        "the system database: Odoo's LISTEN and NOTIFY happen there",
        "the name of a database that is not a template",
        "postgres",
        lambda text: text not in ("template0", "template1") and "://" not in text,
    ),
    Setting("user", "who listens", "a role of PostgreSQL", "db_user", bool),
    Setting("password", "the role's password", "any text", "db_password", bool),
    Setting(
        "sslmode",
        "how the connection is encrypted",
        ", ".join(SSL_MODES),
        "db_sslmode",
        SSL_MODES.__contains__,
    ),
    Setting(
        "dsn",
        "whatever else libpq knows, such as sslrootcert",
        "a connection URI or keyword=value string of libpq",
        "none",
        bool,
    ),
    Setting(
        "keep_notify",
        "keep the pooled connection that a NOTIFY is sent on",
        "True or False",
        "True",
        lambda text: text.lower() in SWITCH,
        prefix="imdispatcher_",
    ),
)
OPTIONS = {setting.name: setting.prefix + setting.name for setting in SETTINGS}


def read(environ: Mapping[str, str], options: Mapping) -> Dict[str, Value]:
    """Return what is set, by name, checked one by one.

    :param environ: the environment
    :param options: Odoo's configuration; anything with ``get``
    :raises BadSetting: for the first value that cannot work
    """
    found = {}
    for setting in SETTINGS:
        value = _find(setting.name, environ, options)
        if value is None:
            continue
        if not setting.check(value.text):
            raise BadSetting(setting.name, value, setting.allowed)
        found[setting.name] = value
    if "dsn" in found:
        _check_dsn(found["dsn"])
    return found


def _find(name: str, environ: Mapping[str, str], options: Mapping):
    option = OPTIONS[name]
    plain, prefixed = option.upper(), "ODOO_" + option.upper()
    given = {key: environ[key] for key in (prefixed, plain) if environ.get(key, "").strip()}
    if len(set(given.values())) > 1:
        _logger.warning("%s and %s are both set and differ: %s counts", plain, prefixed, prefixed)
    for key, text in given.items():
        return Value(_clean(name, text), f"environment variable {key}")
    # up to 18.0 Odoo turns the words None, True and False of odoo.conf into these values
    text = options.get(option)
    unset = text is None or (text is False and name != "keep_notify")
    if unset or not str(text).strip():
        return None
    return Value(_clean(name, str(text)), f"{option} in odoo.conf")


def name_a_place(found: Mapping[str, Value]) -> bool:
    """Tell whether anything is set that says where PostgreSQL is."""
    return bool(set(found) - {"keep_notify"})


def keeps_notify(found: Mapping[str, Value]) -> bool:
    """Tell whether connections to the system database are to be kept; they are unless not."""
    return SWITCH[found["keep_notify"].text.lower()] if "keep_notify" in found else True


def _clean(name: str, text: str) -> str:
    if name == "password":
        return text
    if name in ("host", "port"):
        # libpq takes a blank beside a comma for a part of the name
        return ",".join(part.strip() for part in text.split(","))
    return text.strip()


def _check_dsn(value: Value) -> None:
    try:
        parts = parse_dsn(value.text)
    except psycopg2.ProgrammingError as error:
        raise BadSetting(
            "dsn",
            value,
            "a connection URI or keyword=value string of libpq",
            f"{_why_not_parsed(value.text, str(error))} {NOT_SHOWN}",
        ) from None
    if "dbname" in parts:
        _logger.warning(
            "the database %r in %sdsn is ignored: LISTEN goes to the database that Odoo sends"
            " its NOTIFY in; %sname sets both",
            parts["dbname"],
            PREFIX,
            PREFIX,
        )
    own = ("dsn", "name", "keep_notify")
    checks = [(s.name, s.check, s.allowed) for s in SETTINGS if s.name not in own]
    checks += [(name, str.isdigit, "a whole number") for name in NUMBERS]
    for name, check, allowed in checks:
        if parts.get(name) and not check(parts[name]):
            # a password with an unescaped slash ends up in other parts of a URI
            safe = "password" in parts or "@" not in value.text
            shown = f"{name}={parts[name]!r}" if safe else f"a {name} {NOT_SHOWN}"
            raise BadSetting("dsn", value, f"{name}: {allowed}", shown)


def _why_not_parsed(dsn: str, error: str) -> str:
    # libpq quotes what it stumbled over: safe to repeat only where it cannot be
    # a piece of a password that lacks its quotes
    unknown = re.search(r'invalid (?:connection option|URI query parameter:) "(\w+)"', error)
    if unknown:
        before, keyword, after = dsn.partition(unknown.group(1))
        if "password" not in before.lower() and "@" not in after:
            return f"unknown keyword {keyword!r}"
    return "cannot be parsed"


def check_system_database(found: Mapping[str, Value], options: Mapping) -> None:
    """Compare ``name`` with Odoo's own ``db_system``, which series after 19.0 have.

    :raises BadSetting: where they differ: Odoo would NOTIFY in one and LISTEN in the other
    """
    own = options.get("db_system")
    if "name" in found and own and own != found["name"].text:
        raise BadSetting("name", found["name"], f"the same as db_system, which is {own!r}")
