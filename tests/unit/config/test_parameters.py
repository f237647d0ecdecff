"""What libpq, its environment and its service files make of the settings, with no server."""

import os
import socket
import threading

import pytest

from bus_alt_connection.config import parameters
from bus_alt_connection.config.libpq import connect_timeout, libpq_environ
from bus_alt_connection.config.values import InvalidSetting

ODOO = {"host": "pooler", "port": 6432, "user": "odoo", "password": "odoo's", "sslmode": "prefer"}
LONGEST_PID = "4194304"  # PID_MAX_LIMIT of Linux


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """Neither variables nor service files of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    (tmp_path / "services").write_text(
        "[plain]\nhost=10.0.0.1\n\n"
        "[two]\nhost=10.0.0.1,10.0.0.2\nport=5432,5433\n\n"
        "[address]\nhostaddr=127.0.0.1\n"
    )


@pytest.fixture
def callers():
    """A port on which somebody hangs up, and the list of those who called."""
    called = []
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()

    def answer():
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            called.append(address)
            connection.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield server.getsockname()[1], called
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def load(own=None, environ=None, **options):
    given = {"application_name": f"odoo-{os.getpid()}", **(ODOO if own is None else own)}
    return parameters.load(environ or {}, options, lambda database: {"database": database, **given})


# --- what is inherited ------------------------------------------------------------------


@pytest.mark.parametrize("empty", [None, False, "", 0])
def test_what_odoo_leaves_empty_is_left_to_libpq(empty):
    loaded = load(dict.fromkeys(ODOO, empty), imdispatcher_db_user="me")
    assert loaded.pooled.keys() == {"dbname", "application_name"}
    others = {"user", "password", "dbname", "application_name"}
    assert loaded.listener.keys() == {*others, *parameters.DEFAULTS}


def test_the_pooled_connection_is_odoos_own():
    loaded = load(imdispatcher_db_host="db", imdispatcher_db_user="me", imdispatcher_db_name="bus")
    assert loaded.pooled == {
        **ODOO,
        "port": "6432",
        "dbname": "bus",
        "application_name": "odoo-{pid}",
    }
    assert loaded.listener["dbname"] == "bus"


def test_odoo_is_asked_about_the_system_database():
    asked = []

    def own(database):
        asked.append(database)
        return {"database": database}

    loaded = parameters.load({}, {"db_system": "bus"}, own)
    assert asked == ["bus"]
    assert loaded.listener["dbname"] == loaded.pooled["dbname"] == loaded.database == "bus"


def test_an_odoo_that_names_no_connection_gets_a_name():
    loaded = load({"application_name": ""}, imdispatcher_db_host="db")
    assert loaded.pooled["application_name"] == "odoo-{pid}"
    assert loaded.listener["application_name"] == "odoo-{pid}-listener"


def test_a_given_name_is_taken_as_it_is():
    given = {"imdispatcher_db_host": "db", "imdispatcher_db_application_name": "mine"}
    assert load(**given).listener["application_name"] == "mine"


@pytest.mark.parametrize("given, seconds", [("3", 3.0), ("300", 300.0), ("0", 60.0)])
def test_connecting_has_a_limit(given, seconds):
    """A firewall that drops packets would let it last until the kernel gives up, or an hour."""
    direct = load(imdispatcher_db_connect_timeout=given).listener
    assert connect_timeout(direct) == seconds


def test_defaults_give_way():
    given = {"imdispatcher_db_keepalives": "0", "imdispatcher_db_connect_timeout": "3"}
    direct = load(**given).listener
    assert direct["keepalives"] == "0"
    assert direct["connect_timeout"] == "3"
    assert direct["keepalives_count"] == parameters.DEFAULTS["keepalives_count"]


@pytest.mark.parametrize(
    "option, named",
    [("imdispatcher_db_host", True), ("imdispatcher_db_name", True), ("db_host", False)],
)
def test_whether_postgresql_is_named(option, named):
    assert load(**{option: "x"}).has_direct_settings is named


def test_libpqs_own_variables_stand_for_what_odoo_leaves_empty():
    """Their names of hosts have to be looked up within a limit, too."""
    environ = {"PGHOST": "pooler.example", "PGPORT": "6432"}
    loaded = load({}, environ, imdispatcher_db_port="5432")
    assert (loaded.pooled["host"], loaded.pooled["port"]) == ("pooler.example", "6432")
    assert (loaded.listener["host"], loaded.listener["port"]) == ("pooler.example", "5432")
    assert load(None, environ).pooled["host"] == "pooler"


# --- the name of the listener -----------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["x" * 70, "x" * 47 + "-{pid}", "é" * 63],
    ids=["long", "long with a process number", "not ASCII"],
)
def test_the_name_ends_as_a_listeners_whatever_odoo_is_called(name):
    direct = load({"application_name": name}, imdispatcher_db_host="db").listener
    shown = direct["application_name"].replace("{pid}", LONGEST_PID)
    assert shown.endswith("-listener")
    assert len(shown.encode()) <= 63, "PostgreSQL would cut off the end"


def test_a_small_process_number_is_not_found_within_another_number(monkeypatch):
    """In a container Odoo is process 1; its workers are not."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    loaded = load({"application_name": "odoo19-1"}, imdispatcher_db_host="db")
    assert loaded.pooled["application_name"] == "odoo19-{pid}"


@pytest.mark.parametrize(
    "name, shown",
    [("odoo-1", "odoo-1"), ("odoo-1-{pid}", "odoo-1-{pid}"), ("odoo-{pid}", "odoo-{pid}")],
)
@pytest.mark.parametrize("pid", [1, 20])
@pytest.mark.parametrize("variable", [True, False], ids=["variable", "odoo.conf"])
def test_a_number_in_the_name_is_not_taken_for_the_process(monkeypatch, name, shown, pid, variable):
    """Process 1 would not share its listener with process 20 of the same server."""
    monkeypatch.setattr(os, "getpid", lambda: pid)
    own = {"application_name": name.replace("{pid}", str(pid))}
    environ = {"ODOO_PGAPPNAME": name} if variable else {}
    options = {"db_app_name": "odoo-{pid}" if variable else name}
    loaded = load(own, environ, imdispatcher_db_host="db", **options)
    assert loaded.pooled["application_name"] == shown


# --- what libpq says, without connecting ------------------------------------------------


@pytest.mark.parametrize(
    "hosts, addresses", [("a,b", "10.0.0.1"), ("a", "10.0.0.1,10.0.0.2"), ("a,b,c", "::1,::2")]
)
def test_hosts_and_addresses_that_do_not_fit(hosts, addresses):
    """libpq itself takes none of them, nor do pg_dump and psql."""
    with pytest.raises(InvalidSetting, match="imdispatcher_db_host"):
        load(imdispatcher_db_host=hosts, imdispatcher_db_hostaddr=addresses)


@pytest.mark.parametrize("addresses, ports", [("10.0.0.1,10.0.0.2", "1,2,3"), ("10.0.0.1", "1,2")])
def test_addresses_and_ports_that_do_not_fit(addresses, ports):
    with pytest.raises(InvalidSetting, match="imdispatcher_db_port"):
        load(imdispatcher_db_hostaddr=addresses, imdispatcher_db_port=ports)


def test_as_many_addresses_as_hosts_and_ports():
    three = {"host": "a,b", "hostaddr": "10.0.0.1,10.0.0.2", "port": "1,2"}
    direct = load(**{f"imdispatcher_db_{name}": text for name, text in three.items()}).listener
    assert three.items() <= direct.items()


def test_a_service_of_two_hosts_with_a_port_each():
    assert load(imdispatcher_db_service="two").listener["service"] == "two"


def test_variables_of_libpq_that_name_two_hosts_with_a_port_each(monkeypatch):
    """Odoo itself takes them, so an addon for which nothing is set must not end it."""
    monkeypatch.setenv("PGHOST", "10.0.0.1,10.0.0.2")
    monkeypatch.setenv("PGPORT", "5432,5433")
    assert not load({}).has_direct_settings


def test_nobody_is_called_for_a_service_that_names_an_address(callers):
    """PostgreSQL may be down while Odoo starts, and a firewall may take its time."""
    port, called = callers
    try:
        load(imdispatcher_db_service="address", imdispatcher_db_port=str(port))
    finally:
        assert called == []


def test_nobody_is_called_for_an_address_in_the_environment(callers, monkeypatch):
    port, called = callers
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    try:
        load(imdispatcher_db_host="localhost", imdispatcher_db_port=str(port))
    finally:
        assert called == []


def test_nobody_is_called_for_an_address_that_is_set(callers):
    port, called = callers
    load(imdispatcher_db_hostaddr="127.0.0.1", imdispatcher_db_port=str(port))
    assert called == []


@pytest.mark.parametrize(
    "keyword, text",
    [
        *[("sslmode", "maybe"), ("service", "nowhere"), ("target_session_attrs", "primarily")],
        *[("port", "abc"), ("host", "a b"), ("connect_timeout", "-1"), ("pasword", "hush")],
        *[("gssencmode", "maybe"), ("dsn", "host=a password=hush")],
    ],
)
def test_no_line_about_a_bad_setting_shows_a_password(keyword, text):
    environ = {"IMDISPATCHER_DB_PASSWORD": "hush"}
    with pytest.raises(InvalidSetting, match=f"imdispatcher_db_{keyword}") as error:
        load({**ODOO, "password": "hush"}, environ, **{f"imdispatcher_db_{keyword}": text})
    assert "hush" not in str(error.value) + repr(error.value)
    assert "\n" not in str(error.value)


def test_a_system_database_in_the_environment_disagrees_with_odoos_own():
    with pytest.raises(InvalidSetting, match=r"variable IMDISPATCHER_DB_NAME.*which is 'other'"):
        load(environ={"IMDISPATCHER_DB_NAME": "bus"}, db_system="other")


# --- the environment of pg_dump and its like --------------------------------------------


# what Odoo hands to pg_dump and its like
ODOOS = {"PGHOST": "pooler", "PGHOSTADDR": "10.0.0.9", "PGPORT": "6432"}


def test_the_tools_get_an_address_without_the_poolers_name():
    tools = libpq_environ(
        ODOOS, load(imdispatcher_db_hostaddr="10.0.0.1", imdispatcher_db_port="5432").direct
    )
    assert "PGHOST" not in tools
    assert tools["PGHOSTADDR"] == "10.0.0.1"
    assert tools["PGPORT"] == "5432"


def test_the_tools_get_a_service_instead_of_a_place():
    tools = libpq_environ(ODOOS, load(imdispatcher_db_service="plain").direct)
    assert tools == {
        "PGSERVICE": "plain",
        "PGUSER": "odoo",
        "PGPASSWORD": "odoo's",
        "PGTARGETSESSIONATTRS": "read-write",
        "PGCONNECT_TIMEOUT": "10",
    }


def test_updates_beside_a_service_are_odoos_own_roles():
    """The service file may name a role that may only listen."""
    settings = load(imdispatcher_db_service="plain")
    assert settings.direct["user"] == "odoo"
    assert "user" not in settings.listener


def test_the_tools_get_what_is_set_beside_a_service():
    tools = libpq_environ(
        ODOOS, load(imdispatcher_db_service="plain", imdispatcher_db_port="5433").direct
    )
    assert tools["PGPORT"] == "5433"


@pytest.mark.parametrize(
    "keyword, text, variable",
    [
        ("sslrootcert", "/ca.pem", "PGSSLROOTCERT"),
        ("target_session_attrs", "read-write", "PGTARGETSESSIONATTRS"),
        ("client_encoding", "UTF8", "PGCLIENTENCODING"),
        ("options", "-c geqo=off", "PGOPTIONS"),
        ("passfile", "/pass", "PGPASSFILE"),
        ("connect_timeout", "7", "PGCONNECT_TIMEOUT"),
    ],
)
def test_how_libpq_calls_its_variables(keyword, text, variable):
    assert (
        libpq_environ(ODOOS, load(**{f"imdispatcher_db_{keyword}": text}).direct)[variable] == text
    )


@pytest.mark.parametrize("keyword", ["keepalives_idle", "application_name", "keepalives_count"])
def test_what_has_no_variable_is_not_made_one(keyword):
    tools = libpq_environ(ODOOS, load(**{f"imdispatcher_db_{keyword}": "7"}).direct)
    assert "7" not in tools.values()
    assert not any("KEEPALIVES" in name or "NAME" in name for name in tools)
