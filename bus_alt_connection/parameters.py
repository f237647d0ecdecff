# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""libpq's parameters for a connection straight to PostgreSQL, put together from the settings."""

from typing import Dict, Mapping

from psycopg2.extensions import parse_dsn

from .settings import BadSetting, Value

# settings that are not one parameter of libpq
NO_PARAMETERS = ("dsn", "name", "keep_notify")

# seconds and counts: a dead peer is found after 10 + 3 * 5 = 25 s
DEFAULTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def merge(found: Mapping[str, Value], odoo: Mapping[str, str]) -> Dict[str, str]:
    """Return libpq's parameters for a listening connection.

    A single setting beats the DSN's part of the same name; what neither sets comes from
    Odoo, except beside ``service=``, whose file would otherwise never count.

    :param found: what ``read`` returned
    :param odoo: the parameters of Odoo's own connections (``odoo.sql_db.connection_info_for``)
    :raises BadSetting: where the numbers of hosts and ports do not fit
    """
    dsn = parse_dsn(found["dsn"].text) if "dsn" in found else {}
    single = {name: found[name].text for name in found if name not in NO_PARAMETERS}
    if "host" in single:
        dsn.pop("hostaddr", None)  # libpq would prefer it to the host
    result = {**DEFAULTS, **dsn, **single}
    for name in ("host", "port", "user", "password", "sslmode"):
        if name not in result and odoo.get(name) and "service" not in dsn:
            result[name] = str(odoo[name])
    result["dbname"] = odoo["database"]
    if "hostaddr" in dsn and "host" not in dsn:
        result.pop("host", None)  # the pooler's name does not belong to this address
    _check_numbers(found, result)
    return result


def _check_numbers(found: Mapping[str, Value], result: Mapping[str, str]) -> None:
    hosts = str(result.get("hostaddr") or result.get("host", "")).split(",")
    ports = result.get("port", "").split(",")
    if len(ports) > 1 and len(ports) != len(hosts):
        name = "port" if "port" in found else "dsn"
        value = found.get(name) or Value(result["port"], "db_port of Odoo")
        raise BadSetting(
            name,
            value,
            "one port, or one per host",
            f"{len(ports)} ports ({result['port']}) for {len(hosts)} hosts ({','.join(hosts)})",
        )
