# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the operator set, merged once with Odoo's own settings into what everything else gets."""

import os
import re
from typing import Callable, Dict, Mapping, NamedTuple

import psycopg2
from psycopg2.extensions import libpq_version

from .settings import DB, METRICS, NAME, ODOO_USER, Value, read

NAMEDATALEN = 64  # PostgreSQL cuts application_name at this length, its last byte included

# seconds and counts: a dead peer is found after 10 + 3 * 5 = 25 s
DEFAULTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}

# who it is that connects
IDENTITY = {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword"}

# what has no environment variable ("34.15. Environment Variables" of the libpq documentation), and
# what the tools have of their own: the database as an argument, a name
NO_VARIABLE = re.compile(r"keepalives.*|tcp_user_timeout|sslpassword|dbname|.*application_name")


# of several hosts; before libpq 14, and for tools that may be older, the one that can be written to
READ_WRITE = "read-write"
PRIMARY = "primary" if libpq_version() >= 140000 else READ_WRITE


class Settings(NamedTuple):
    """All that the addon knows of the set-up; parameters are libpq's."""

    given: Mapping[str, Value]  # by its name in odoo.conf
    database: str  # the system database: Odoo's LISTEN and NOTIFY happen there
    direct: Mapping[str, str]  # parameters of the listener
    owner: Mapping[str, str]  # of a direct connection as Odoo's own role
    pooled: Mapping[str, str]  # parameters of Odoo's own connections to the system database

    @property
    def names_postgresql(self) -> bool:
        """Whether anything is set that says where PostgreSQL is."""
        return any(option.startswith(DB) for option in self.given)

    @property
    def shows_metrics(self) -> bool:
        """Whether there is a page for Prometheus."""
        return METRICS in self.given and self.given[METRICS].text.lower() == "true"


def load(
    environ: Mapping[str, str], options: Mapping, own: Callable[[str], Mapping[str, object]]
) -> Settings:
    """Return the settings, read, checked and merged.

    :param environ: the environment
    :param options: Odoo's configuration
    :param own: returns the parameters of Odoo's own connections to a database
    :raises BadSetting: for the first that cannot work
    """
    given = read(environ, options)
    database = _system_database(given, options)
    pooled = {name: str(value) for name, value in own(database).items() if value}
    pooled["dbname"] = pooled.pop("database", database)
    for keyword, name in (("host", "PGHOST"), ("hostaddr", "PGHOSTADDR"), ("port", "PGPORT")):
        if environ.get(name):  # libpq would take it too, but wait for a name server without limit
            pooled.setdefault(keyword, environ[name])
    name = pooled.get("application_name", "odoo-{pid}")
    pooled["application_name"] = re.sub(rf"\b{os.getpid()}\b", "{pid}", name)
    direct = _direct(given, pooled)
    _check_with_libpq(given, direct)
    owner = _owner(given, direct, pooled)
    return Settings(given, database, direct, owner, pooled)


def _system_database(given: Mapping[str, Value], options: Mapping) -> str:
    name, own = given.get(NAME), options.get("db_system")
    if name and own and own != name.text:
        # Odoo would NOTIFY in one and LISTEN in the other
        raise name.bad(f"the same as db_system, which is {own!r}")
    served = options.get("db_name") or []  # a list from 19.0 on
    if name and name.text in (served.split(",") if isinstance(served, str) else served):
        raise name.bad("a database that Odoo itself does not use (db_name names it)")
    return name.text if name else own or "postgres"


def _direct(given: Mapping[str, Value], pooled: Mapping[str, str]) -> Dict[str, str]:
    """Return the parameters of the listener; what is not set comes from Odoo.

    But for ``service``, whose file would otherwise never count.
    """
    own = {value.keyword: value.text for name, value in given.items() if name.startswith(DB)}
    own.pop("name", None)  # the system database, which is no keyword of libpq's
    kept = [] if "service" in own else ["host", "port", "user", "password", "sslmode"]
    inherited = {keyword: pooled[keyword] for keyword in kept if keyword in pooled}
    if "hostaddr" in own:
        inherited.pop("host", None)  # the pooler's name does not belong to this address
    if own.get("sslrootcert") == "system":
        inherited.pop("sslmode", None)  # libpq takes verify-full alone, then
    if kept and ("passfile" in own or _is_other(own, pooled)):
        # Odoo's own password is for nobody else, nor is PGPASSWORD; libpq looks into the
        # password file where the password is empty
        inherited["password"] = ""
    name = named(pooled, "-listener")
    result = {**inherited, **DEFAULTS, "application_name": name, **own, "dbname": pooled["dbname"]}
    if "," in result.get("hostaddr", result.get("host", "")) or "service" in own:
        result.setdefault("target_session_attrs", PRIMARY)  # nobody else takes LISTEN
    return result


def _is_other(direct: Mapping[str, str], pooled: Mapping[str, str]) -> bool:
    """Tell whether the listener's role is not Odoo's own."""
    return direct.get("user", pooled.get("user")) != pooled.get("user")


def _owner(
    given: Mapping[str, Value], direct: Mapping[str, str], pooled: Mapping[str, str]
) -> Dict[str, str]:
    """Return the parameters with which Odoo's own role goes where the listener goes."""
    # a service file may name another role
    result = {key: pooled[key] for key in ("user", "password") if key in pooled}
    theirs = IDENTITY if _is_other(direct, pooled) else ()
    result.update((keyword, text) for keyword, text in direct.items() if keyword not in theirs)
    if ODOO_USER in given:
        result["user"] = given[ODOO_USER].text
    result["application_name"] = named(pooled, "-loading")
    if result.get("target_session_attrs") == PRIMARY:
        result["target_session_attrs"] = READ_WRITE
    return result


def named(pooled: Mapping[str, str], suffix: str) -> str:
    """Return Odoo's ``application_name`` with a suffix that says whose session it is."""
    # a process's number may have two characters more than {pid}
    name = pooled["application_name"].encode()[: NAMEDATALEN - 3 - len(suffix)]
    return name.decode(errors="ignore") + suffix


def _check_with_libpq(given: Mapping[str, Value], direct: Mapping[str, str]) -> None:
    """Let libpq itself look at the parameters, without connecting anywhere.

    libpq checks its options before it connects, so with socket folders that do not exist only
    a bad option gives a line that does not name the folder.

    :raises BadSetting: where libpq refuses an option
    """
    nowhere = "/bus_alt_connection/no/such/folder"
    number, addresses = (len(direct.get(key, "").split(",")) for key in ("host", "hostaddr"))
    if "host" in direct and "hostaddr" in direct and number != addresses:
        raise given[DB + "hostaddr"].bad("one for each host of imdispatcher_db_host")
    hosts = ",".join([nowhere] * max(number, addresses))
    # what is set here hides a service file and libpq's environment variables
    dry = {"port": "5432", **direct, "host": hosts, "hostaddr": ""}
    try:
        psycopg2.connect(**dry)
    except psycopg2.Error as error:
        bad = re.search(r"invalid .*" if nowhere in str(error) else ".+", str(error))
        if bad:
            # libpq names the option first, then perhaps its value
            found = {value: re.search(rf"\b{value.keyword}", bad[0]) for value in given.values()}
            named = {value: match.start() for value, match in found.items() if match}
            own = Value(DB + "*", "", "odoo.conf and Odoo's own db_* settings")
            value = min(named, key=lambda value: named[value], default=own)
            raise value.bad(f"what libpq takes ({bad[0]})") from None


def variables(environ: Mapping[str, str], owner: Mapping[str, str]) -> Dict[str, str]:
    """Return an environment in which pg_dump and its like go where these parameters say."""
    # what Odoo put there leads to the pooler; a service file may leave the port out
    place = ("PGHOST", "PGHOSTADDR", "PGPORT")
    result = {name: value for name, value in environ.items() if name not in place}
    for keyword, value in owner.items():
        if not NO_VARIABLE.fullmatch(keyword):
            short = keyword if keyword == "connect_timeout" else keyword.replace("_", "")
            result["PG" + short.upper()] = value
    return result
