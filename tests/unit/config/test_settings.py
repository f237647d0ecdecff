"""The operator's settings: reading, checking, merging. Pure logic, no server."""

import logging
import os

import pytest

from bus_alt_connection.config import parameters as libpq
from bus_alt_connection.config import settings
from bus_alt_connection.config.libpq import PRIMARY, libpq_environ
from bus_alt_connection.config.values import InvalidSetting

HOST = "imdispatcher_db_host"

ODOO = {
    "database": "postgres",
    "host": "pooler",
    "port": 6432,
    "user": "odoo",
    "password": "odoo's",
    "sslmode": "prefer",
}


def load(environ=None, odoo=ODOO, **options):
    own = {"application_name": f"odoo-{os.getpid()}", **odoo}
    return libpq.load(environ or {}, options, lambda database: {**own, "database": database})


def parameters(environ=None, odoo=ODOO, **options):
    return load(environ, odoo, **options).listener


@pytest.mark.parametrize(
    "environ, options, text, source",
    [
        (
            {"IMDISPATCHER_DB_HOST": "a"},
            {"imdispatcher_db_host": "b"},
            "a",
            "environment variable IMDISPATCHER_DB_HOST",
        ),
        (
            {"ODOO_IMDISPATCHER_DB_HOST": "a"},
            {"imdispatcher_db_host": "b"},
            "a",
            "environment variable ODOO_IMDISPATCHER_DB_HOST",
        ),
        ({}, {"imdispatcher_db_host": " b "}, "b", "imdispatcher_db_host in odoo.conf"),
        (
            {"IMDISPATCHER_DB_HOST": ""},
            {"imdispatcher_db_host": "b"},
            "b",
            "imdispatcher_db_host in odoo.conf",
        ),
        (
            {"IMDISPATCHER_DB_HOST": "a", "ODOO_IMDISPATCHER_DB_HOST": " "},
            {},
            "a",
            "environment variable IMDISPATCHER_DB_HOST",
        ),
    ],
)
def test_where_a_setting_comes_from(environ, options, text, source):
    assert settings.read(environ, options) == {HOST: settings.Value(HOST, text, source)}


# 19.0 leaves the words as they are
@pytest.mark.parametrize("empty", [None, False, "", "  ", "False", "None"])
def test_empty_means_not_set(empty):
    assert settings.read({}, {"imdispatcher_db_host": empty}) == {}
    assert settings.read({"IMDISPATCHER_DB_PORT": ""}, {}) == {}


def test_names_that_differ_warn(caplog):
    environ = {"IMDISPATCHER_DB_PORT": "1", "ODOO_IMDISPATCHER_DB_PORT": "2"}
    with caplog.at_level(logging.WARNING):
        assert settings.read(environ, {})["imdispatcher_db_port"].text == "2"
    assert "ODOO_IMDISPATCHER_DB_PORT counts" in caplog.text


def test_passwords_that_differ_are_not_logged(caplog):
    environ = {"IMDISPATCHER_DB_PASSWORD": "hush1", "ODOO_IMDISPATCHER_DB_PASSWORD": "hush2"}
    settings.read(environ, {})
    assert "both set" in caplog.text
    assert "hush" not in caplog.text


def test_a_password_keeps_its_blanks():
    assert (
        settings.read({"IMDISPATCHER_DB_PASSWORD": " a "}, {})["imdispatcher_db_password"].text
        == " a "
    )


@pytest.mark.parametrize(
    "host",
    [
        "db.example.com",
        "10.0.0.1",
        "::1",
        "fe80::1%eth0",
        "/run/postgresql",
        "@abstract",
        "a,b,::1",
        "my_db",
    ],
)
def test_good_hosts(host):
    assert parameters(imdispatcher_db_host=host)["host"] == host


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a,,b",
        ",",
        "db:5432",
        "postgresql://db",
        "[::1]",
        "a;b",
        "http://x/",
        "a..b",
        "x" * 64,
    ],
)
def test_bad_hosts(host):
    with pytest.raises(settings.InvalidSetting, match="imdispatcher_db_host") as error:
        settings.read({}, {"imdispatcher_db_host": host})
    assert ("(not shown)" if "://" in host else repr(host)) in str(error.value)
    assert "allowed" in str(error.value)


@pytest.mark.parametrize("option", ["host", "port", "name", "sslmode"])
@pytest.mark.parametrize(
    "text", ["postgresql://odoo:hush@db/x", "odoo:hush@db", "host=db password=hush"]
)
def test_a_connection_string_in_the_wrong_place_is_not_shown(option, text):
    """It may hold a password, which libpq's own words would repeat."""
    if option == "name" and "://" not in text:
        return  # a database may have that name
    with pytest.raises(InvalidSetting) as error:
        load(**{"imdispatcher_db_host": "db", f"imdispatcher_db_{option}": text})
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("text", ["caf\udce9", "a\0b"])
def test_bytes_that_are_no_text(text):
    """Odoo would start without the addon."""
    for option in ("password", "sslrootcert"):
        with pytest.raises(InvalidSetting, match=f"imdispatcher_db_{option}.*text in UTF-8"):
            load({f"IMDISPATCHER_DB_{option.upper()}": text})


@pytest.mark.parametrize("port", ["1", "65535", "5432,5433", "5432,"])
def test_good_ports(port):
    hosts = ",".join("h" for _port in port.split(","))
    assert parameters(imdispatcher_db_port=port, imdispatcher_db_host=hosts)["port"] == port


@pytest.mark.parametrize(
    "option, value",
    [
        *(("port", port) for port in ("abc", "0", "65536", "70000", "-1", "5432.0", "0x10")),
        *(("port", port) for port in ("٥٤٣٢", "5 432", "1,x", ",1")),
        *(("sslmode", mode) for mode in ("maybe", "REQUIRE", "on")),
        ("service", "nowhere"),
        ("target_session_attrs", "primarily"),
        ("keepalives_idle", "soon"),
        ("connect_timeout", "1s"),
        ("hostaddr", "10.0.0.1,pg.example.com"),
        ("hostaddr", "pg.example.com,10.0.0.1"),
        *(("target_session_attrs", one) for one in ("standby", "prefer-standby", "read-only")),
        *(("replication", one) for one in ("database", "true")),
        *(("client_encoding", one) for one in ("nonsense", "-")),
    ],
)
def test_bad_values(option, value):
    hosts = {"imdispatcher_db_host": "10.0.0.1,10.0.0.2"}
    with pytest.raises(InvalidSetting) as error:
        load(**hosts, **{f"imdispatcher_db_{option}": value})
    assert f"imdispatcher_db_{option} in odoo.conf): {value!r}; allowed" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "option, value",
    [
        *(("hostaddr", address) for address in ("10.0.0.1", "::1", "fe80::1%eth0", "::1,10.0.0.1")),
        *(("target_session_attrs", one) for one in ("any", "read-write", PRIMARY)),
        ("replication", "off"),
        *(("client_encoding", one) for one in ("utf-8", "UNICODE", "WINDOWS-1252", "auto")),
    ],
)
def test_good_values(option, value):
    hosts = ",".join("a" for _address in value.split(","))
    given = {"imdispatcher_db_host": hosts, f"imdispatcher_db_{option}": value}
    assert parameters(**given)[option] == value


def test_blanks_between_addresses():
    given = {"imdispatcher_db_host": "a, b", "imdispatcher_db_hostaddr": "10.0.0.1, 10.0.0.2"}
    assert parameters(**given)["hostaddr"] == "10.0.0.1,10.0.0.2"


def test_hosts_and_ports_that_do_not_fit():
    with pytest.raises(InvalidSetting, match="could not match 3 port numbers to 2 hosts"):
        load(imdispatcher_db_host="a,b", imdispatcher_db_port="1,2,3")


def test_a_bad_value_that_is_odoos_own():
    with pytest.raises(InvalidSetting, match="Odoo's own"):
        load(odoo={**ODOO, "sslmode": "maybe"}, imdispatcher_db_host="a")


@pytest.mark.parametrize("option", ["sslrootcert", "passfile", "service", "sslcrl"])
def test_any_keyword_of_libpq_is_a_setting(option):
    name = f"imdispatcher_db_{option}"
    assert settings.read({}, {name: "x"})[name].text == "x"
    assert settings.read({name.upper(): "x"}, {})[name].text == "x"
    assert settings.read({"ODOO_" + name.upper(): "x"}, {})[name].text == "x"


@pytest.mark.parametrize(
    "name, instead",
    [
        ("imdispatcher_db_sslrootcrt", "did you mean imdispatcher_db_sslrootcert?"),
        ("imdispatcher_db_hots", "did you mean imdispatcher_db_host?"),
        ("imdispatcher_db_dbname", "did you mean imdispatcher_db_name?"),
        ("imdispatcher_odoo_usr", "did you mean imdispatcher_odoo_user?"),
        ("imdispatcher_db_zzz", "see libpq's keywords"),
        ("imdispatcher_db_dsn", "each keyword of libpq is a setting of its own now"),
    ],
)
def test_unknown_names(name, instead):
    for environ, options in (({}, {name: "hush"}), ({name.upper(): "hush"}, {})):
        with pytest.raises(InvalidSetting, match=f"unknown setting {name}") as error:
            settings.read(environ, options)
        assert instead in str(error.value)
        assert "hush" not in str(error.value)


KUBERNETES = {
    "IMDISPATCHER_DB_SERVICE_HOST": "10.0.0.1",
    "IMDISPATCHER_DB_SERVICE_PORT": "5432",
    "IMDISPATCHER_DB_SERVICE_PORT_POSTGRES": "5432",
    "IMDISPATCHER_DB_PORT": "tcp://10.0.0.1:5432",
    "IMDISPATCHER_DB_PORT_5432_TCP": "tcp://10.0.0.1:5432",
    "IMDISPATCHER_DB_PORT_5432_TCP_ADDR": "10.0.0.1",
    "IMDISPATCHER_DB_PORT_5432_TCP_PROTO": "tcp",
}


def test_what_kubernetes_sets_is_ignored_with_one_warning(caplog):
    options = {"imdispatcher_db_port": "5433"}
    found = settings.read(KUBERNETES, options)
    assert {name: value.text for name, value in found.items()} == options
    assert len(caplog.records) == 1
    assert "enableServiceLinks: false" in caplog.text


def test_a_port_beside_what_kubernetes_sets_counts():
    environ = {**KUBERNETES, "IMDISPATCHER_DB_PORT": "5434"}
    assert settings.read(environ, {})["imdispatcher_db_port"].text == "5434"


def test_a_password_is_never_shown():
    hosts = {"imdispatcher_db_password": "hush", "imdispatcher_db_sslpassword": "hush"}
    with pytest.raises(InvalidSetting) as error:
        load(**hosts, imdispatcher_db_port="abc")
    assert "hush" not in str(error.value)
    value = settings.Value("imdispatcher_db_password", "hush", "")
    assert "hush" not in str(value.invalid("x"))


def test_what_is_not_set_comes_from_odoo():
    assert parameters(imdispatcher_db_host="a") == {
        **libpq.DEFAULTS,
        "application_name": "odoo-{pid}-listener",
        "host": "a",
        "port": "6432",
        "user": "odoo",
        "password": "odoo's",
        "sslmode": "prefer",
        "dbname": "postgres",
    }


def test_the_name_fits_into_postgresql():
    odoo = {**ODOO, "application_name": "x" * 70}
    name = parameters(odoo=odoo, imdispatcher_db_host="a")["application_name"]
    assert 55 <= len(name) <= 63
    assert name.endswith("x-listener")


def test_an_address_does_not_get_the_poolers_name():
    merged = parameters(imdispatcher_db_hostaddr="10.0.0.1")
    assert "host" not in merged
    assert merged["hostaddr"] == "10.0.0.1"


@pytest.mark.parametrize("more", [{}, {"imdispatcher_db_connect_timeout": "3"}])
def test_an_address_where_odoo_uses_a_socket(more):
    assert "host" not in parameters(odoo={}, imdispatcher_db_hostaddr="10.0.0.1", **more)


def test_blanks_beside_commas():
    merged = parameters(imdispatcher_db_host="a, b", imdispatcher_db_port=" 1 ,2")
    assert merged["host"] == "a,b"
    assert merged["port"] == "1,2"


def test_of_several_hosts_libpq_takes_the_primary():
    settings = load(imdispatcher_db_host="a,b")
    assert settings.listener["target_session_attrs"] == PRIMARY
    # pg_dump may be older than psycopg2's libpq
    assert settings.direct["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in parameters(imdispatcher_db_host="a")
    given = {"imdispatcher_db_host": "a,b", "imdispatcher_db_target_session_attrs": "any"}
    assert parameters(**given)["target_session_attrs"] == "any"


def test_a_password_file_is_not_overruled_by_odoos_password():
    """libpq looks into it where the password is empty, and no PGPASSWORD counts then."""
    assert parameters(imdispatcher_db_passfile="/x")["password"] == ""


def test_odoos_password_is_not_for_another_role():
    assert parameters(imdispatcher_db_user="listener")["password"] == ""
    assert parameters(imdispatcher_db_user="odoo")["password"] == "odoo's"
    given = {"imdispatcher_db_user": "listener", "imdispatcher_db_password": "own"}
    assert parameters(**given)["password"] == "own"


def test_certificates_of_the_system_bring_their_own_sslmode():
    assert "sslmode" not in parameters(imdispatcher_db_sslrootcert="system")
    assert parameters(imdispatcher_db_sslrootcert="/ca.pem")["sslmode"] == "prefer"


@pytest.mark.parametrize("served", ["shop", ["shop"], "shop,other", False])
def test_an_account_with_one_database_has_no_other_system_database(served):
    assert load(imdispatcher_db_name="shop", db_name=served).database == "shop"


@pytest.mark.parametrize("served", ["postgres", ["shop", "postgres"]])
def test_odoos_own_database_is_called_postgres(served):
    """Odoo connects to both by this name, so it cannot be told which one is meant."""
    with pytest.raises(InvalidSetting, match=r"imdispatcher_db_name.*Odoo's own database"):
        load(imdispatcher_db_name="bus", db_name=served)
    assert load(imdispatcher_db_host="db", db_name=served).database == "postgres"


@pytest.mark.parametrize("host", ["auto", "AUTO", " auto "])
def test_auto_takes_nothing_of_the_poolers_address(host):
    settings = load(imdispatcher_db_host=host)
    for parameters in (settings.listener, settings.direct):
        assert parameters["host"] == "auto"
        assert "port" not in parameters
    assert load(imdispatcher_db_host=host, imdispatcher_db_port="5433").direct["port"] == "5433"


def test_auto_stands_alone():
    with pytest.raises(InvalidSetting, match="auto alone"):
        load(imdispatcher_db_host="auto,10.0.0.5")
    with pytest.raises(InvalidSetting, match=r"imdispatcher_db_hostaddr.*nothing, where"):
        load(imdispatcher_db_host="auto", imdispatcher_db_hostaddr="10.0.0.5")


def test_the_owners_password_can_be_set():
    """PgBouncer may log in with a role and a password of its own."""
    owner = {"imdispatcher_odoo_user": "owner", "imdispatcher_odoo_password": "hers"}
    direct = load(imdispatcher_db_host="db", **owner).direct
    assert (direct["user"], direct["password"]) == ("owner", "hers")
    listener = {"imdispatcher_db_user": "owner", "imdispatcher_db_password": "hers"}
    settings = load(imdispatcher_db_host="db", imdispatcher_odoo_user="owner", **listener)
    assert (settings.direct["user"], settings.direct["password"]) == ("owner", "hers")


def test_a_service_is_not_overruled_by_odoo(tmp_path, monkeypatch):
    (tmp_path / "services").write_text("[direct]\nhost=10.0.0.1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    settings = load(imdispatcher_db_service="direct")
    assert settings.listener == {
        **libpq.DEFAULTS,
        "application_name": "odoo-{pid}-listener",
        "service": "direct",
        "target_session_attrs": PRIMARY,  # it may name several hosts
        "dbname": "postgres",
    }
    assert libpq_environ(ODOOS, settings.direct)["PGSERVICE"] == "direct"
    assert "PGPORT" not in libpq_environ(ODOOS, settings.direct)


# what Odoo hands to pg_dump and its like
ODOOS = {"PGHOST": "pooler", "PGHOSTADDR": "10.0.0.9", "PGPORT": "6432"}


def test_the_environment_of_pg_dump():
    more = {"imdispatcher_db_sslrootcert": "/ca.pem", "imdispatcher_db_port": "5432"}
    assert libpq_environ(ODOOS, load(imdispatcher_db_host="db", **more).direct) == {
        "PGHOST": "db",
        "PGPORT": "5432",
        "PGUSER": "odoo",
        "PGPASSWORD": "odoo's",
        "PGSSLMODE": "prefer",
        "PGSSLROOTCERT": "/ca.pem",
        "PGCONNECT_TIMEOUT": "10",
    }


LISTENER = {
    "imdispatcher_db_host": "db",
    "imdispatcher_db_user": "listener",
    "imdispatcher_db_password": "listener's",
    "imdispatcher_db_sslcert": "/listener.crt",
    "imdispatcher_db_sslkey": "/listener.key",
}


def test_pg_dump_is_not_the_listeners_role():
    """It may own nothing and see nothing. Module loading is Odoo's, too."""
    direct = load(**LISTENER).direct
    tools = libpq_environ(ODOOS, direct)
    assert tools["PGHOST"] == direct["host"] == "db"
    assert (tools["PGUSER"], tools["PGPASSWORD"]) == ("odoo", "odoo's")
    assert (direct["user"], direct["password"]) == ("odoo", "odoo's")
    assert not {"PGPASSFILE", "PGSSLCERT", "PGSSLKEY"} & tools.keys()
    assert not {"sslcert", "sslkey"} & direct.keys()
    assert direct["application_name"] == "odoo-{pid}-loading"


def test_odoos_role_may_have_another_name_without_the_pooler():
    settings = load(**LISTENER, imdispatcher_odoo_user="postgres")
    assert libpq_environ(ODOOS, settings.direct)["PGUSER"] == settings.direct["user"] == "postgres"
    assert settings.pooled["user"] == "odoo"


def test_pg_dump_goes_to_the_primary_of_several_hosts():
    tools = libpq_environ(ODOOS, load(imdispatcher_db_host="standby,primary").direct)
    assert tools["PGHOST"] == "standby,primary"
    assert tools["PGTARGETSESSIONATTRS"] == "read-write"


def test_a_dead_peer_is_found_within_30_seconds():
    idle, interval, count = (
        int(libpq.DEFAULTS[f"keepalives_{name}"]) for name in ("idle", "interval", "count")
    )
    assert idle + interval * count <= 30


def test_another_system_database_agrees_with_odoos_own():
    assert load(imdispatcher_db_name="bus").database == "bus"
    assert load(imdispatcher_db_name="bus").pooled["dbname"] == "bus"
    assert load(imdispatcher_db_name="bus", db_system="bus").database == "bus"
    assert load(db_system="anything").database == "anything"
    assert load().database == "postgres"
    with pytest.raises(InvalidSetting, match="db_system, which is 'postgres'"):
        load(imdispatcher_db_name="bus", db_system="postgres")


@pytest.mark.parametrize("name", ["template0", "template1", "postgres://x"])
def test_bad_system_databases(name):
    with pytest.raises(InvalidSetting, match="imdispatcher_db_name"):
        load(imdispatcher_db_name=name)


@pytest.mark.parametrize("text", ["False", False, True, "perhaps"])
def test_a_setting_of_version_1_0_only_warns(text, caplog):
    assert load(imdispatcher_keep_notify=text).given == {}
    assert load({"IMDISPATCHER_KEEP_NOTIFY": "no"}).given == {}
    assert [record.getMessage() for record in caplog.records] == [
        "imdispatcher_keep_notify has no effect any more: remove it"
    ] * 2


def test_what_has_direct_settings():
    assert load(imdispatcher_db_port="5432").has_direct_settings
    assert not load().has_direct_settings


@pytest.mark.parametrize("text, shown", [("True", True), ("true", True), ("False", False)])
def test_metrics_are_shown_where_somebody_says_so(text, shown):
    assert not load().metrics_enabled
    assert load({"IMDISPATCHER_METRICS": text}).metrics_enabled is shown
    # up to 18.0 Odoo turns the word into a value
    assert load(imdispatcher_metrics=text.title() == "True").metrics_enabled is shown
    assert not load(imdispatcher_metrics=text).has_direct_settings


def test_metrics_are_shown_or_not():
    with pytest.raises(
        InvalidSetting, match=r"imdispatcher_metrics.*'9100'; allowed: True or False"
    ):
        load(imdispatcher_metrics="9100")


# --- what other programs and images set -------------------------------------------------


@pytest.mark.parametrize(
    "environ, options",
    [
        ({}, {"cron_db_host": "a", "cron_db_port": "5432"}),
        ({"ODOO_CRON_DB_HOST": "a"}, {}),
        ({"CRON_DB_HOST": "a"}, {}),
    ],
)
def test_a_fork_s_settings_for_cron_are_ignored_with_one_warning(caplog, environ, options):
    load(environ, imdispatcher_db_host="b", **options)
    (record,) = caplog.records
    name = next(iter({**environ, **options}))
    assert name in record.getMessage() and "imdispatcher_db_*" in record.getMessage()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["DB_PASSWORD", "ODOO_PASSWORD"])
def test_a_password_with_a_line_end(caplog, name, end):
    found = load({f"IMDISPATCHER_{name}": f"secret {end}"}, imdispatcher_odoo_user="x")
    assert found.given[f"imdispatcher_{name.lower()}"].text == "secret "
    (record,) = caplog.records
    assert f"IMDISPATCHER_{name}" in record.getMessage() and "secret" not in record.getMessage()


@pytest.mark.parametrize("prefix", ["", "ODOO_"])
def test_a_password_in_a_file(tmp_path, caplog, prefix):
    (tmp_path / "secret").write_text("of the file\n")
    path = str(tmp_path / "secret")
    found = parameters({f"{prefix}IMDISPATCHER_DB_PASSWORD_FILE": path})
    assert found["password"] == "of the file"
    assert not caplog.records


PASSWORD = "IMDISPATCHER_DB_PASSWORD"


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "other, counts",
    [
        (PASSWORD, PASSWORD + "_FILE"),
        (PASSWORD + "_FILE", "ODOO_" + PASSWORD),
        ("ODOO_" + PASSWORD, "ODOO_" + PASSWORD + "_FILE"),
    ],
)
def test_two_that_differ_whatever_their_order(tmp_path, caplog, other, counts, backwards):
    set_there = {}
    for name, secret in [(other, "other"), (counts, "hush")]:
        (tmp_path / name).write_text(secret)
        set_there[name] = str(tmp_path / name) if name.endswith("_FILE") else secret
    environ = dict(sorted(set_there.items(), reverse=backwards))
    assert parameters(environ)["password"] == "hush"
    (record,) = caplog.records
    said = f"{other} and {counts} are both set and differ: {counts} counts"
    assert record.getMessage() == said


def test_a_file_that_is_not_there():
    with pytest.raises(InvalidSetting, match=r"DB_PASSWORD_FILE.*No such file"):
        parameters({"IMDISPATCHER_DB_PASSWORD_FILE": "/no/such/file"})


def test_what_shows_local_variables_hides_passwords():
    environ = {"IMDISPATCHER_DB_USER": "listener", "IMDISPATCHER_DB_PASSWORD": "top"}
    found = load(environ, imdispatcher_odoo_password="secret")
    for shown in (found, found.listener, found.direct, found.pooled, dict(found.pooled)):
        assert not [word for word in ("top", "secret", "odoo's") if f"'{word}'" in repr(shown)]
        assert "odoo's" not in repr(shown)
    assert found.listener["password"] == "top"
    assert libpq_environ({}, found.direct)["PGPASSWORD"] == "secret"
    hide = type(found.listener["password"]).__sentry_repr__
    assert "top" not in hide(found.listener["password"])
