# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Will notifications arrive, and if not, why? What the command ``buscheck`` looks at."""

import time
from typing import Dict, Mapping, Optional

import psycopg2

from . import parameters, paths, payload, seams, session, settings
from .direct import Direct, named, one_line
from .redirect import SERIES
from .report import BAD, GOOD, REMARK, Report

# seconds: of connecting and of each query; with all of them the command ends within 15
TIMEOUT = 4.0
HEARD_WITHIN = 2.0

DIRECT = "imdispatcher_db_host = <PostgreSQL>\nimdispatcher_db_port = 5432"


def run(environ: Mapping[str, str], options: Mapping) -> Report:
    """Look at everything and return the report.

    :param environ: the environment
    :param options: Odoo's configuration
    :raises settings.BadSetting: where nothing can be looked at
    """
    found = settings.read(environ, options)
    settings.check_system_database(found, options)
    own = options.get("db_system") or "postgres"
    database = found["name"].text if "name" in found else own
    merged = parameters.merge(found, paths.normal(database))
    paths.check(merged, found)
    report = Report()
    report.settings = list(_settings(found, merged, paths.normal(database)))
    waker = session.Waker()
    sessions: list = []
    try:
        _look(report, found, database, options, waker, sessions)
    finally:
        for one in sessions:
            one.close()
        waker.close()
    return report


def _settings(found, merged, own):
    for name in ("host", "port", "dbname", "user", "password", "sslmode"):
        key = "name" if name == "dbname" else name
        value = merged.get(name, "")
        if key in found:
            source = found[key].source
        elif value and "dsn" in found and merged.get(name) != own.get(name):
            source = found["dsn"].source
        else:
            source = "Odoo's own db_* settings" if value else "not set: libpq's default"
        if name == "password" and value:
            value = "set"
        yield {"name": key, "value": value, "source": source}
    if "keep_notify" in found:
        yield {
            "name": "keep_notify",
            "value": found["keep_notify"].text,
            "source": found["keep_notify"].source,
        }


def _look(report, found, database, options, waker, sessions) -> None:
    normal = _normal_path(report, database, waker, sessions)
    if not settings.name_a_place(found):
        if normal and not normal.lends:
            return
        report.add(
            "Direct path",
            BAD,
            "no imdispatcher_db_* setting is there: LISTEN goes where db_host and db_port lead",
            f"In odoo.conf:\n{DIRECT}",
        )
        return
    direct = _direct_path(report, found, database, waker, sessions)
    if direct and normal:
        _meet(report, normal, direct, database, waker)
    if direct:
        _room(report, direct, options)
    if normal and normal.pooler:
        _pooler(report, database, waker, options)


# --- the normal path ------------------------------------------------------------------


class Normal(session.Session):
    """A session on the normal path."""

    pooler = False
    lends = False  # whether its server connection is lent to others between transactions


def _open(kind, path: Mapping[str, str], waker) -> session.Session:
    error: Optional[Exception] = None
    for place in session.places({k: v for k, v in path.items() if k != "connect_timeout"}):
        try:
            return kind(place, waker, TIMEOUT)
        except psycopg2.Error as failure:
            error = failure
    raise error


def _normal_path(report, database, waker, sessions):
    section = "Normal path (db_host and db_port: every query, and NOTIFY)"
    path = paths.normal(database)
    try:
        one = _open(Normal, path, waker)
        sessions.append(one)
        (backend,) = one.run("SELECT pg_backend_pid()")
        one.lends = _lends(path, waker, one, backend)
    except psycopg2.Error as error:
        report.add(
            section,
            BAD,
            f"not reachable: {one_line(error)}",
            "Check Odoo's own db_host, db_port, db_user and db_password.",
        )
        return None
    one.pooler = backend != one.info.backend_pid
    if one.lends:
        report.add(section, GOOD, f"{one.place()} is a pooler that lends server connections")
        report.add(section, REMARK, "a LISTEN does not survive here: this addon is needed")
    elif one.pooler:
        report.add(section, GOOD, f"{one.place()} is a pooler that keeps sessions (session mode)")
        report.add(section, REMARK, "a LISTEN survives here: this addon is not needed")
    else:
        version = one.info.parameter_status("server_version")
        report.add(section, GOOD, f"{one.place()} is PostgreSQL {version} itself")
        report.add(section, REMARK, "a LISTEN survives here: this addon is not needed")
    return one


def _lends(path, waker, one, backend) -> bool:
    """Tell whether another session gets the backend that this one has had."""
    if backend == one.info.backend_pid:
        return False
    other = _open(Normal, path, waker)
    try:
        for _attempt in range(5):
            (mine,) = one.run("SELECT pg_backend_pid()")
            # holds what it got while the first session asks again
            other.run("BEGIN")
            (theirs,) = other.run("SELECT pg_backend_pid()")
            (now,) = one.run("SELECT pg_backend_pid()")
            other.run("ROLLBACK")
            if theirs == mine or now != mine:
                return True
        return False
    finally:
        other.close()


# --- the direct path ------------------------------------------------------------------

# what to do, by a word of libpq's or of our own error
HINTS = (
    (
        "password",
        "In odoo.conf, where they differ from db_user and db_password:\n"
        "imdispatcher_db_user = <role>\nimdispatcher_db_password = <its password>",
    ),
    (
        "pg_hba",
        "In PostgreSQL's pg_hba.conf, for the address that the message names:\n"
        "host <database> <role> <address>/32 scram-sha-256",
    ),
    (
        "permission denied",
        "As superuser:\nGRANT CONNECT ON DATABASE <database> TO <role>;\n"
        "or name another database:\nimdispatcher_db_name = <database>",
    ),
    ("does not exist", "Check imdispatcher_db_name and imdispatcher_db_user."),
    (
        "certificate",
        "The name in imdispatcher_db_host has to stand in the server's certificate, and\n"
        "sslrootcert has to name the file of who signed it:\n"
        "imdispatcher_db_dsn = sslrootcert=/path/to/ca.pem",
    ),
    (
        "SSL",
        "imdispatcher_db_sslmode asks for what the server does not offer; see ssl in\n"
        "postgresql.conf, or:\nimdispatcher_db_sslmode = prefer",
    ),
    (
        "no answer",
        "Something drops the packets: a firewall, a network policy, a wrong address. Check\n"
        f"{DIRECT}",
    ),
    (
        "refused",
        f"Nothing listens there. Check listen_addresses in postgresql.conf, and\n{DIRECT}",
    ),
    ("resolved", "Check the name in imdispatcher_db_host."),
    (
        "standby",
        "Name the primary, or all servers, of which the primary is taken:\n"
        "imdispatcher_db_host = <server>,<server>",
    ),
)


def _hint(text: str) -> str:
    for word, advice in HINTS:
        if word in text:
            return advice
    return "Check the imdispatcher_db_* settings."


def _direct_path(report, found, database, waker, sessions):
    section = "Direct path (imdispatcher_db_*: LISTEN)"
    wanted = paths.direct("buscheck", database, found)
    timeout = min(TIMEOUT, float(wanted.pop("connect_timeout")) or TIMEOUT)
    try:
        places = session.places(wanted)
    except psycopg2.Error as error:
        report.add(section, BAD, one_line(error), _hint(str(error)))
        return None
    failures = []
    direct = None
    deadline = time.monotonic() + 2 * TIMEOUT
    for place in places:
        left = deadline - time.monotonic()
        if left <= 0:
            failures.append("the rest was not tried: these took too long")
            break
        try:
            direct = Direct(place, waker, min(timeout, left))
            sessions.append(direct)
            direct.meet()
            break
        except psycopg2.Error as error:
            failures.append(named(place, error))
            direct = None
    for text in failures:
        report.add(section, REMARK if direct else BAD, text, "" if direct else _hint(text))
    if direct:
        if direct.behind_pooler():
            report.add(section, REMARK, f"{direct.place()} is a pooler, not PostgreSQL itself")
        else:
            report.add(section, GOOD, f"{direct.where()}, a primary")
        report.add(section, GOOD, _tls(direct, wanted))
    return direct


def _tls(direct: Direct, wanted: Mapping[str, str]) -> str:
    mode = wanted.get("sslmode", "prefer")
    if not direct.info.ssl_in_use:
        return f"not encrypted (sslmode={mode})"
    checked = {
        "verify-full": "the server's certificate and its name were verified",
        "verify-ca": "the server's certificate was verified, its name was not",
    }
    how = checked.get(mode, "the server's certificate was not verified")
    return f"{direct.info.ssl_attribute('protocol')}, {how} (sslmode={mode})"


# --- where both meet --------------------------------------------------------------------

IDENTITY = (
    "SELECT pg_postmaster_start_time()::text, current_database(), current_setting('server_version')"
)


def _meet(report, normal, direct, database, waker) -> None:
    section = "Both paths meet"
    text = payload.probe()
    try:
        direct.listen(["LISTEN bus_alt_connection"])
        here = direct.run(IDENTITY)
        there = normal.run(IDENTITY)
        begin = time.monotonic()
        normal.run(f"NOTIFY bus_alt_connection, '{text}'")
        while time.monotonic() < begin + HEARD_WITHIN:
            left = begin + HEARD_WITHIN - time.monotonic()
            if text in [notify.payload for notify in direct.wait(left)]:
                took = 1000 * (time.monotonic() - begin)
                report.add(
                    section, GOOD, f"a NOTIFY on the normal path was heard after {took:.0f} ms"
                )
                return
    except psycopg2.Error as error:
        report.add(section, BAD, one_line(error), _hint(str(error)))
        return
    if direct.behind_pooler():
        report.add(
            section,
            BAD,
            f"not heard: {direct.place()} is a pooler, not PostgreSQL itself",
            f"In odoo.conf:\n{DIRECT}",
        )
    elif here[0] != there[0]:
        report.add(
            section,
            BAD,
            f"not heard: db_host leads to another server than {direct.place()}"
            f" (that one started {there[0]}, this one {here[0]})",
            "imdispatcher_db_host has to be the server behind the pooler.",
        )
    elif here[1] != there[1]:
        report.add(
            section,
            BAD,
            f"not heard: the pooler leads to database {there[1]}, LISTEN is in {here[1]}",
            "See [databases] of the pooler, and imdispatcher_db_name.",
        )
    else:
        report.add(
            section,
            BAD,
            f"not heard within {HEARD_WITHIN:g} s",
            "Run it again; is the server overloaded?",
        )


# --- room ---------------------------------------------------------------------------------


def _listeners(options: Mapping) -> Dict[str, int]:
    channels = {row.channel for row in seams.LISTENERS if row.first <= SERIES}
    cron = int(options.get("max_cron_threads") or 0) if "cron_trigger" in channels else 0
    return {"bus": 1, "cron": cron}


def _room(report, direct, options) -> None:
    section = "Room"
    needed = _listeners(options)
    total = sum(needed.values())
    limit, used = direct.run(
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int,"
        " (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL)"
    )
    text = (
        f"this Odoo opens {total} direct connections ({needed['bus']} bus, {needed['cron']} cron);"
        f" {used} of {limit} are in use now"
    )
    fits = used + total <= limit
    advice = "" if fits else "Raise max_connections, or lower the pooler's limits."
    report.add(section, GOOD if fits else BAD, text, advice)


def _pooler(report, database, waker, options) -> None:
    """Ask a PgBouncer for its configuration; most do not let Odoo's role look."""
    section = "Room"
    try:
        console = _open(Normal, paths.normal("pgbouncer"), waker)
    except psycopg2.Error:
        return
    try:
        config = {row["key"]: row["value"] for row in console.rows("SHOW CONFIG")}
        databases = console.rows("SHOW DATABASES")
    except psycopg2.Error:
        return
    finally:
        console.close()
    mode, size = config.get("pool_mode", ""), config.get("default_pool_size", "")
    for row in databases:
        if row["name"] == database:
            mode, size = row.get("pool_mode") or mode, row.get("pool_size") or size
    report.add(section, REMARK, f"PgBouncer: for {database} pool_mode={mode}, pool_size={size}")
    total = sum(_listeners(options).values())
    if mode == "session" and total >= int(size):
        report.add(
            section,
            BAD,
            f"without this addon {total} listeners would fill that pool, and every NOTIFY hang",
            f"Remove pool_mode=session from the line of {database} in pgbouncer.ini.",
        )
