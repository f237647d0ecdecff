# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Where is PostgreSQL? What the operator set, read and checked in this one place.

Any keyword of libpq is a setting ("34.1.2. Parameter Key Words" of its documentation). For one,
``host``:

* ``IMDISPATCHER_DB_HOST`` or ``ODOO_IMDISPATCHER_DB_HOST`` in the environment, which win;
* ``imdispatcher_db_host`` in odoo.conf.
"""

from __future__ import annotations

import difflib
import logging
import re
from typing import Mapping

import psycopg2
from psycopg2.extensions import parse_dsn

from .environ import read_environ
from .rules import allowed_instead
from .values import DB_PREFIX, PREFIX, SECRET, InvalidSetting, Secret, Value

_logger = logging.getLogger("odoo.addons.bus_alt_connection.settings")

DB_NAME = DB_PREFIX + "name"
ODOO_USER = PREFIX + "odoo_user"
ODOO_PASSWORD = PREFIX + "odoo_password"
METRICS_OPTION = PREFIX + "metrics"
KEEP_NOTIFY_1_0 = PREFIX + "keep_notify"  # of version 1.0

# what the table in docs/settings.rst shows: what each is, and what counts where it is not set
DESCRIPTIONS = {
    DB_PREFIX + "host": (
        "``auto``: where the pooler leads to; or where PostgreSQL itself is, several hosts"
        " separated by commas",
        "db_host",
    ),
    DB_PREFIX + "port": (
        "its port: one, or one per host; found, too, with ``auto``",
        "db_port",
    ),
    DB_PREFIX + "user": ("the role that listens; it needs only CONNECT", "db_user"),
    DB_PREFIX + "password": (
        "password of that role; Odoo's own counts only if the role is ``db_user``",
        "db_password",
    ),
    DB_PREFIX + "sslmode": ("how the connection is encrypted, in libpq's words", "db_sslmode"),
    DB_NAME: ("the system database, where Odoo sends LISTEN and NOTIFY", "postgres"),
    ODOO_USER: ("the name of Odoo's role on PostgreSQL, if the pooler uses another one", "db_user"),
    ODOO_PASSWORD: ("its password, if PostgreSQL has another one than the pooler", "db_password"),
    METRICS_OPTION: (
        "``True``: show metrics to Prometheus, and to all who reach the port",
        "False",
    ),
}

AUTO = "auto"  # as a host: the server that the pooled connection leads to

# a socket folder, an abstract socket; a name or an address
HOST = re.compile(r"[/@].*|[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-fA-F.]*(:[0-9a-fA-F.]*){2,}(%\w+)?")

# libpq knows which keywords there are, but does not list them; these are for "did you mean"
KEYWORDS = """
    host hostaddr port user password passfile service options application_name client_encoding
    channel_binding require_auth requirepeer sslmode sslrootcert sslcert sslkey sslpassword sslcrl
    sslsni sslnegotiation ssl_min_protocol_version ssl_max_protocol_version gssencmode krbsrvname
    target_session_attrs load_balance_hosts connect_timeout tcp_user_timeout keepalives
    keepalives_idle keepalives_interval keepalives_count
"""

# of forks of OCA's addon, for the connection of cron
CRON_DB = re.compile(r"cron_db_\w+|(ODOO_)?CRON_DB_\w+")
CRON_DB_IGNORED = "ignored %s: cron, too, listens where the settings imdispatcher_db_* say"

LINE_END = "%s (from %s) ends with a line end, which is not taken for a part of it"


def read(environ: Mapping[str, str], options: Mapping) -> dict[str, Value]:
    """Return what is set, by its name in odoo.conf, each value checked by itself.

    :param environ: the environment
    :param options: Odoo's configuration
    :raises InvalidSetting: for the first name or value that cannot work
    """
    found = {}
    for option, text in options.items():
        # what Odoo writes for nothing; up to 18.0 it turns these words into the values
        if option.startswith(PREFIX) and str(text).strip().lower() not in ("", "none", "false"):
            found[option] = Value(option, str(text), f"{option} in odoo.conf")
    found.update(read_environ(environ))
    ignored = [name for name in (*options, *environ) if CRON_DB.fullmatch(name)]
    if ignored:
        _logger.warning(CRON_DB_IGNORED, ", ".join(sorted(ignored)))
    if KEEP_NOTIFY_1_0 in found or KEEP_NOTIFY_1_0 in options:
        _logger.warning("%s has no effect any more: remove it", KEEP_NOTIFY_1_0)
        found.pop(KEEP_NOTIFY_1_0, None)
    return {option: _validated(value) for option, value in found.items()}


def _validated(value: Value) -> Value:
    option, keyword = value.option, value.keyword
    if option not in DESCRIPTIONS and not (option.startswith(DB_PREFIX) and is_keyword(keyword)):
        raise InvalidSetting(
            f"unknown setting {option} (from {value.source}): {_suggestion(option)}"
        )
    if SECRET.search(option):
        text = value.text.rstrip("\r\n")
        if text != value.text:
            _logger.warning(LINE_END, option, value.source)
        value = value._replace(text=Secret(text))
    else:
        # libpq takes a blank beside a comma for a part of the name
        listed = keyword in ("host", "hostaddr", "port")
        parts = value.text.split(",") if listed else [value.text]
        value = value._replace(text=",".join(part.strip() for part in parts))
    text = value.text
    if re.search("[\0\ud800-\udfff]", text):
        raise value.invalid("text in UTF-8")
    if keyword == "host":
        return _validated_host(value)
    if option == DB_NAME and (text in ("template0", "template1") or "://" in text):
        raise value.invalid("the name of a database that is not a template")
    if option == METRICS_OPTION and text.lower() not in ("true", "false"):
        raise value.invalid("True or False")
    allowed = allowed_instead(keyword, text)
    if allowed:
        raise value.invalid(allowed)
    return value


def _validated_host(value: Value) -> Value:
    hosts = value.text.split(",")
    if [host.lower() for host in hosts] == [AUTO]:
        return value._replace(text=AUTO)
    if AUTO in hosts:
        raise value.invalid("auto alone, or hosts")
    if not all(HOST.fullmatch(host) for host in hosts):
        allowed = "host names, IP addresses or socket folders; the port is a setting itself"
        raise value.invalid(allowed)
    return value


def is_keyword(name: str) -> bool:
    """Tell whether libpq knows this keyword; the database has a setting of its own."""
    if name == "dbname" or not re.fullmatch(r"[a-z_]+", name):
        return False
    try:
        return bool(parse_dsn(f"{name}=x"))
    except psycopg2.ProgrammingError:
        return False


def _suggestion(option: str) -> str:
    if option == DB_PREFIX + "dsn":
        return f"each keyword of libpq is a setting of its own now, such as {DB_PREFIX}sslrootcert"
    known = [*DESCRIPTIONS, *(DB_PREFIX + word for word in KEYWORDS.split() if is_keyword(word))]
    # what all names begin with would make any two of them alike
    near = difflib.get_close_matches(
        option[len(PREFIX) :], [name[len(PREFIX) :] for name in known], 1, 0.7
    )
    return (
        f"did you mean {PREFIX}{near[0]}?"
        if near
        else f"see libpq's keywords: {DB_PREFIX}<keyword>"
    )
