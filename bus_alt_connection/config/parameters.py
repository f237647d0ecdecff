# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the operator set, merged once with Odoo's own settings into libpq's parameters."""

from __future__ import annotations

import os
import re
from typing import Callable, Mapping, NamedTuple

import psycopg2

from .libpq import ADDRESS_VARIABLES, PRIMARY, READ_WRITE, application_name
from .settings import AUTO, DB_NAME, METRICS_OPTION, ODOO_PASSWORD, ODOO_USER, read
from .values import DB_PREFIX, SECRET, Secret, Value

# seconds and counts: a dead peer is found after 10 + 3 * 5 = 25 s
DEFAULTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}

# what the listener takes from Odoo's own settings where nothing else is set
INHERITED = ("host", "port", "user", "password", "sslmode")

CREDENTIALS = {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword"}

DEFAULT_DATABASE = "postgres"  # where Odoo sends LISTEN and NOTIFY


class Settings(NamedTuple):
    """All that the addon knows of the set-up; parameters are libpq's."""

    given: Mapping[str, Value]  # by its name in odoo.conf
    database: str  # the system database: Odoo's LISTEN and NOTIFY happen there
    listener: Mapping[str, str]  # parameters of the listener's direct connection
    direct: Mapping[str, str]  # of a direct connection as Odoo's own role
    pooled: Mapping[str, str]  # of Odoo's own connections to the system database
    served: tuple = ()  # the databases that db_name names

    @property
    def has_direct_settings(self) -> bool:
        """Whether anything is set that says where PostgreSQL is."""
        return any(option.startswith(DB_PREFIX) for option in self.given)

    @property
    def metrics_enabled(self) -> bool:
        """Whether there is a page for Prometheus."""
        option = self.given.get(METRICS_OPTION)
        return bool(option) and option.text.lower() == "true"


def load(
    environ: Mapping[str, str],
    options: Mapping,
    connection_info: Callable[[str], Mapping[str, object]],
) -> Settings:
    """Return the settings, read, checked and merged.

    :param environ: the environment
    :param options: Odoo's configuration
    :param connection_info: returns the parameters of Odoo's own connections to a database
    :raises InvalidSetting: for the first that cannot work
    """
    given = read(environ, options)
    database = _system_database(given, options)
    pooled = _pooled(connection_info(database), database, environ, options)
    listener = _listener(given, pooled)
    _check_with_libpq(given, listener)
    direct, served = _direct(given, listener, pooled), tuple(served_databases(options))
    return Settings(given, database, listener, direct, pooled, served)


def _system_database(given: Mapping[str, Value], options: Mapping) -> str:
    name, db_system = given.get(DB_NAME), options.get("db_system")
    if name and db_system and db_system != name.text:
        # Odoo would NOTIFY in one and LISTEN in the other
        raise name.invalid(f"the same as db_system, which is {db_system!r}")
    served = served_databases(options)
    if name and name.text != DEFAULT_DATABASE and DEFAULT_DATABASE in served:
        # Odoo connects to both by the same name: it cannot be told which one is meant
        raise name.invalid("postgres, or nothing: it is Odoo's own database (db_name)")
    return name.text if name else db_system or DEFAULT_DATABASE


def served_databases(options: Mapping) -> list[str]:
    """Return the databases that ``db_name`` names, of Odoo's configuration."""
    served = options.get("db_name") or []  # a list from 19.0 on
    return served.split(",") if isinstance(served, str) else list(served)


def _pooled(
    connection_info: Mapping[str, object],
    database: str,
    environ: Mapping[str, str],
    options: Mapping,
) -> dict[str, str]:
    """Return the parameters of Odoo's own connections, as text."""
    pooled = {
        name: Secret(value) if SECRET.search(name) else str(value)
        for name, value in connection_info.items()
        if value
    }
    pooled["dbname"] = pooled.pop("database", database)
    for keyword, variable in ADDRESS_VARIABLES.items():
        # libpq would take it too, but wait for a name server without limit
        if environ.get(variable):
            pooled.setdefault(keyword, environ[variable])
    # as configured: a number of the operator's own may be this process's, too
    name = environ.get("ODOO_PGAPPNAME") or options.get("db_app_name")
    if not name:  # Odoo's own has the number in it
        default = pooled.get("application_name", "odoo-{pid}")
        name = re.sub(rf"\b{os.getpid()}\b", "{pid}", default)
    pooled["application_name"] = str(name)
    return pooled


def _listener(given: Mapping[str, Value], pooled: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of the listener; what is not set comes from Odoo."""
    configured = {v.keyword: v.text for option, v in given.items() if option.startswith(DB_PREFIX)}
    configured.pop("name", None)  # the system database, which is no keyword of libpq's
    inherited = {}
    if "service" not in configured:  # else its file says it, and would never count
        inherited = {keyword: pooled[keyword] for keyword in INHERITED if keyword in pooled}
        if "hostaddr" in configured:
            inherited.pop("host", None)  # the pooler's name does not belong to this address
        if configured.get("host") == AUTO:
            inherited.pop("port", None)  # the pooler's port does not belong to that server
        if configured.get("sslrootcert") == "system":
            inherited.pop("sslmode", None)  # libpq takes verify-full alone, then
        if "passfile" in configured or _is_other_role(configured, pooled):
            # Odoo's own password is for Odoo's role alone, and so is PGPASSWORD; libpq looks into
            # the password file where the password is empty
            inherited["password"] = ""
    name = application_name(pooled, "-listener")
    result = {**inherited, **DEFAULTS, "application_name": name, **configured}
    result["dbname"] = pooled["dbname"]
    if "," in result.get("hostaddr", result.get("host", "")) or "service" in configured:
        result.setdefault("target_session_attrs", PRIMARY)  # a standby takes no LISTEN
    return result


def _direct(
    given: Mapping[str, Value], listener: Mapping[str, str], pooled: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters with which Odoo's own role goes where the listener goes."""
    role = {key: pooled[key] for key in ("user", "password") if key in pooled}
    if _is_other_role(listener, pooled):
        shared = {key: text for key, text in listener.items() if key not in CREDENTIALS}
        result = {**role, **shared}
    else:
        result = {**role, **listener}  # a service file may name another role
    if ODOO_USER in given:
        result["user"] = given[ODOO_USER].text
        if result["user"] == listener.get("user"):
            result.update({key: listener[key] for key in CREDENTIALS if key in listener})
    if ODOO_PASSWORD in given:
        result["password"] = given[ODOO_PASSWORD].text
    result["application_name"] = application_name(pooled, "-loading")
    if result.get("target_session_attrs") == PRIMARY:
        result["target_session_attrs"] = READ_WRITE
    return result


def _is_other_role(parameters: Mapping[str, str], pooled: Mapping[str, str]) -> bool:
    """Tell whether the role is not Odoo's own."""
    return parameters.get("user", pooled.get("user")) != pooled.get("user")


def _check_with_libpq(given: Mapping[str, Value], listener: Mapping[str, str]) -> None:
    """Let libpq itself check the parameters, without connecting anywhere.

    libpq checks its options before it connects, so with socket folders that do not exist only
    a bad option gives a line that does not name the folder.

    :raises InvalidSetting: where libpq refuses an option
    """
    nowhere = "/bus_alt_connection/no/such/folder"
    if listener.get("host") == AUTO and "hostaddr" in listener:
        raise given[DB_PREFIX + "hostaddr"].invalid("nothing, where imdispatcher_db_host is auto")
    number, addresses = (len(listener.get(key, "").split(",")) for key in ("host", "hostaddr"))
    if "host" in listener and "hostaddr" in listener and number != addresses:
        raise given[DB_PREFIX + "hostaddr"].invalid("one for each host of imdispatcher_db_host")
    hosts = ",".join([nowhere] * max(number, addresses))
    # what is set here hides a service file and libpq's environment variables
    dry = {"port": "5432", **listener, "host": hosts, "hostaddr": ""}
    try:
        psycopg2.connect(**dry)
    except psycopg2.Error as error:
        refusal = re.search(r"invalid .*" if nowhere in str(error) else ".+", str(error))
        if refusal:
            raise _blamed(given, refusal[0]).invalid(f"what libpq takes ({refusal[0]})") from None


def _blamed(given: Mapping[str, Value], refusal: str) -> Value:
    """Return the setting that libpq's text is about: it names the option, then its value."""
    matches = {value: re.search(rf"\b{value.keyword}", refusal) for value in given.values()}
    mentioned = {value: match.start() for value, match in matches.items() if match}
    default = Value(DB_PREFIX + "*", "", "odoo.conf and Odoo's own db_* settings")
    return min(mentioned, key=lambda value: mentioned[value], default=default)
