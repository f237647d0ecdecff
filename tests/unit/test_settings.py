"""The operator's settings: reading, checking, merging. Pure logic, no server."""

import logging

import pytest

from bus_alt_connection import parameters as libpq
from bus_alt_connection import settings

ODOO = {
    "database": "postgres",
    "application_name": "odoo-1",
    "host": "pooler",
    "port": 6432,
    "user": "odoo",
    "password": "odoo's",
    "sslmode": "prefer",
}


def parameters(environ=None, odoo=ODOO, **options):
    return libpq.merge(settings.read(environ or {}, options), odoo)


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
    assert settings.read(environ, options) == {"host": settings.Value(text, source)}


@pytest.mark.parametrize("empty", [None, False, "", "  "])
def test_empty_means_not_set(empty):
    assert settings.read({}, {"imdispatcher_db_host": empty}) == {}
    assert settings.read({"IMDISPATCHER_DB_PORT": ""}, {}) == {}


def test_names_that_differ_warn(caplog):
    environ = {"IMDISPATCHER_DB_PORT": "1", "ODOO_IMDISPATCHER_DB_PORT": "2"}
    with caplog.at_level(logging.WARNING):
        assert settings.read(environ, {})["port"].text == "2"
    assert "ODOO_IMDISPATCHER_DB_PORT counts" in caplog.text


def test_passwords_that_differ_are_not_logged(caplog):
    environ = {"IMDISPATCHER_DB_PASSWORD": "hush1", "ODOO_IMDISPATCHER_DB_PASSWORD": "hush2"}
    settings.read(environ, {})
    assert "both set" in caplog.text
    assert "hush" not in caplog.text


def test_a_password_keeps_its_blanks():
    assert settings.read({"IMDISPATCHER_DB_PASSWORD": " a "}, {})["password"].text == " a "


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
    "host", ["a b", "a,,b", ",", "db:5432", "postgresql://db", "[::1]", "a;b", "http://x/"]
)
def test_bad_hosts(host):
    with pytest.raises(settings.BadSetting, match="imdispatcher_db_host") as error:
        settings.read({}, {"imdispatcher_db_host": host})
    assert repr(host) in str(error.value)
    assert "allowed" in str(error.value)


@pytest.mark.parametrize("port", ["1", "65535", "5432,5433", "5432,"])
def test_good_ports(port):
    hosts = ",".join("h" for _port in port.split(","))
    assert parameters(imdispatcher_db_port=port, imdispatcher_db_host=hosts)["port"] == port


@pytest.mark.parametrize(
    "port", ["abc", "0", "65536", "70000", "-1", "5432.0", "0x10", "٥٤٣٢", "5 432"]
)
def test_bad_ports(port):
    with pytest.raises(settings.BadSetting) as error:
        parameters(imdispatcher_db_port=port, imdispatcher_db_host="a,b")
    assert "imdispatcher_db_port in odoo.conf" in str(error.value)
    assert "1 to 65535" in str(error.value)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"imdispatcher_db_host": "a,b", "imdispatcher_db_port": "1,2,3"}, "port"),
        ({"imdispatcher_db_host": "a", "imdispatcher_db_port": "1,2"}, "port"),
        ({"imdispatcher_db_dsn": "host=a,b,c port=1,2"}, "dsn"),
        ({"imdispatcher_db_dsn": "host=a,b port=1,2", "imdispatcher_db_host": "a"}, "dsn"),
    ],
)
def test_hosts_and_ports_that_do_not_fit(options, name):
    with pytest.raises(settings.BadSetting, match=f"imdispatcher_db_{name}.* ports .* hosts"):
        parameters(**options)


@pytest.mark.parametrize("mode", ["maybe", "REQUIRE", "on"])
def test_bad_sslmode(mode):
    with pytest.raises(settings.BadSetting, match="verify-full"):
        settings.read({"IMDISPATCHER_DB_SSLMODE": mode}, {})


@pytest.mark.parametrize(
    "dsn, said",
    [
        ("garbage", "cannot be parsed"),
        ("host=a nonsense=1", "unknown keyword 'nonsense'"),
        ("postgresql://h/db?nonsense=1", "unknown keyword 'nonsense'"),
        ("host='a", "cannot be parsed"),
        ("postgresql://[::1/db", "cannot be parsed"),
        ("port=abc", "port='abc'"),
        ("postgresql://h:70000/", "port='70000'"),
        ("sslmode=maybe", "sslmode='maybe'"),
        ("keepalives_idle=soon", "keepalives_idle='soon'"),
    ],
)
def test_bad_dsns(dsn, said):
    with pytest.raises(settings.BadSetting, match="imdispatcher_db_dsn") as error:
        settings.read({}, {"imdispatcher_db_dsn": dsn})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=a password=hush more hush",
        "host=a password=one hush=two",
        "host=a pasword=hush",
        "postgresql://u:hu%zzsh@h/",
        "postgresql://u:hush@h/?nonsense=1",
        "postgresql://u:hush@h:70000/",
        "hush",
        "password=hush port=abc",
        "postgresql://u:hu/hush?hush=1@h/",
        "postgresql://u:hush/x@h/",
    ],
)
def test_a_bad_dsn_does_not_show_its_password(dsn):
    with pytest.raises(settings.BadSetting) as error:
        settings.read({"IMDISPATCHER_DB_DSN": dsn}, {})
    shown = str(error.value) + repr(error.value.__cause__)
    assert "hush" not in shown
    assert "%zz" not in shown


def test_what_is_not_set_comes_from_odoo():
    assert parameters(imdispatcher_db_host="a") == {
        **libpq.DEFAULTS,
        "host": "a",
        "port": "6432",
        "user": "odoo",
        "password": "odoo's",
        "sslmode": "prefer",
        "dbname": "postgres",
    }


def test_single_settings_beat_the_dsn():
    merged = parameters(
        imdispatcher_db_dsn="postgresql://u:p@h:1/other?sslmode=require&keepalives_idle=60",
        imdispatcher_db_host="a",
        imdispatcher_db_user="me",
    )
    assert merged["host"] == "a"
    assert merged["port"] == "1"
    assert merged["user"] == "me"
    assert merged["password"] == "p"
    assert merged["sslmode"] == "require"
    assert merged["keepalives_idle"] == "60"
    assert merged["dbname"] == "postgres", "Odoo sends its NOTIFY there"


def test_an_address_does_not_get_the_poolers_name():
    merged = parameters(imdispatcher_db_dsn="hostaddr=10.0.0.1")
    assert "host" not in merged
    assert merged["hostaddr"] == "10.0.0.1"


@pytest.mark.parametrize("dsn", ["hostaddr=10.0.0.1", "service=direct hostaddr=10.0.0.1"])
def test_an_address_where_odoo_uses_a_socket(dsn):
    assert "host" not in parameters(odoo={"database": "postgres"}, imdispatcher_db_dsn=dsn)


def test_blanks_beside_commas():
    merged = parameters(imdispatcher_db_host="a, b", imdispatcher_db_port=" 1 ,2")
    assert merged["host"] == "a,b"
    assert merged["port"] == "1,2"


def test_a_host_beats_the_dsns_address():
    merged = parameters(imdispatcher_db_dsn="hostaddr=10.0.0.1", imdispatcher_db_host="a")
    assert merged["host"] == "a"
    assert "hostaddr" not in merged


def test_a_service_is_not_overruled_by_odoo():
    assert parameters(imdispatcher_db_dsn="service=direct") == {
        **libpq.DEFAULTS,
        "service": "direct",
        "dbname": "postgres",
    }


def test_a_dead_peer_is_found_within_30_seconds():
    idle, interval, count = (
        int(libpq.DEFAULTS[f"keepalives_{name}"]) for name in ("idle", "interval", "count")
    )
    assert idle + interval * count <= 30


def test_another_system_database_agrees_with_odoos_own():
    found = settings.read({"IMDISPATCHER_DB_NAME": "bus"}, {})
    settings.check_system_database(found, {})
    settings.check_system_database(found, {"db_system": "bus"})
    with pytest.raises(settings.BadSetting, match="db_system, which is 'postgres'"):
        settings.check_system_database(found, {"db_system": "postgres"})
    settings.check_system_database({}, {"db_system": "anything"})


@pytest.mark.parametrize(
    "environ, options, kept",
    [
        ({}, {}, True),
        ({}, {"imdispatcher_keep_notify": "False"}, False),
        # what Odoo up to 18.0 makes of the words in odoo.conf
        ({}, {"imdispatcher_keep_notify": False}, False),
        ({}, {"imdispatcher_keep_notify": True}, True),
        ({}, {"imdispatcher_keep_notify": ""}, True),
        ({"IMDISPATCHER_KEEP_NOTIFY": "no"}, {"imdispatcher_keep_notify": "True"}, False),
        ({"ODOO_IMDISPATCHER_KEEP_NOTIFY": "ON"}, {"imdispatcher_keep_notify": "False"}, True),
    ],
)
def test_whether_notify_keeps_its_connection(environ, options, kept):
    assert settings.keeps_notify(settings.read(environ, options)) is kept


def test_keeping_is_on_or_off():
    expected = (
        "bad setting imdispatcher_keep_notify \\(from imdispatcher_keep_notify in odoo.conf\\):"
        " 'perhaps'; allowed: True or False"
    )
    with pytest.raises(settings.BadSetting, match=expected):
        settings.read({}, {"imdispatcher_keep_notify": "perhaps"})


def test_keeping_alone_names_no_place():
    found = settings.read({}, {"imdispatcher_keep_notify": "False"})
    assert not settings.name_a_place(found)
    assert settings.name_a_place(settings.read({}, {"imdispatcher_db_port": "5432"}))
