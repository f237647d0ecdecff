"""A direct connection is found, proven, and goes to the primary alone of several addresses."""

import contextlib
import os
import secrets
import socket
import struct
import subprocess
import threading

import psycopg2
import pytest

from bus_alt_connection.postgres import hosts
from bus_alt_connection.postgres.proof import prove
from bus_alt_connection.postgres.session import Session

from ...stack.postgres import BIN, Postgres, server_environ
from ..conftest import settings_of, tools_of

# seconds, of each address
TIMEOUT = 2


@contextlib.contextmanager
def standby(servers, **options):
    one = Postgres(
        servers.folder / f"standby-{secrets.token_hex(4)}",
        primary=servers.postgres,
        options={"recovery_min_apply_delay": "1h", **options},
    )
    yield one
    one.stop()


def direct(servers, hosts, ports, **options):
    place = {"imdispatcher_db_host": ",".join(hosts)}
    place["imdispatcher_db_port"] = ",".join(map(str, ports))
    return settings_of(servers, **place, **options).direct


def psql(servers, settings) -> str:
    """Run the tool with the environment that Odoo would give it; return where it has been."""
    pooler = servers.pooled
    stock = {"PGHOST": pooler.host, "PGPORT": str(pooler.port), "PGUSER": pooler.user}
    stock["PGPASSWORD"] = pooler.password
    tools = tools_of(settings)
    environ = tools.dump(lambda _name: tools.environ(lambda: {**os.environ, **stock}), "postgres")
    environ["LD_LIBRARY_PATH"] = server_environ()["LD_LIBRARY_PATH"]
    # a server's own port is the same through the pooler
    where = "\\echo :PORT\nSELECT pg_is_in_recovery();"
    done = subprocess.run(
        [BIN / "psql", "-XAt", "postgres"],
        env=environ,
        input=where,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_a_standby_that_lags_is_named_first(servers):
    name = f"new_{secrets.token_hex(4)}"
    with standby(servers) as lagging:
        lagging.start()
        servers.postgres.execute(f"CREATE DATABASE {name}")
        both = direct(servers, ["127.0.0.1"] * 2, [lagging.port, servers.direct.port])
        with pytest.raises(psycopg2.OperationalError, match="does not exist"):
            Session({**both, "dbname": name})
        found = prove(both, settings_of(servers).pooled, name).parameters
    assert found["port"] == str(servers.direct.port)
    servers.pgbouncer.forget(name)
    servers.postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_first_of_several_never_answers(servers):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = [silent.getsockname()[1], servers.direct.port]
        timeout = {"imdispatcher_db_connect_timeout": TIMEOUT}
        both = direct(servers, ["127.0.0.1"] * 2, ports, **timeout)
        with pytest.raises(psycopg2.OperationalError, match="no answer"):
            Session(both)
        found = prove(both, settings_of(servers).pooled, "postgres").parameters
        assert found["port"] == str(servers.direct.port)


def test_a_name_has_the_address_of_a_standby_too(servers, monkeypatch):
    original = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        names = ["127.0.0.2", "127.0.0.1"] if host == "pg.example.com" else [host]
        return [answer for name in names for answer in original(name, *args, **kwargs)]

    monkeypatch.setattr(hosts.socket, "getaddrinfo", getaddrinfo)
    with standby(servers, listen_addresses="127.0.0.2") as other:
        other.port = servers.direct.port
        access = other.data / "pg_hba.conf"
        access.write_text(access.read_text().replace("127.0.0.1/32", "127.0.0.0/8"))
        other.start()
        named = direct(servers, ["pg.example.com"], [servers.direct.port])
        found = prove(named, settings_of(servers).pooled, "postgres").parameters
    assert found["hostaddr"] == "127.0.0.1"
    assert found["host"] == "pg.example.com", "certificates are checked against it"


@pytest.mark.parametrize(
    "hosts",
    ["host=127.0.0.1,localhost", "hostaddr=127.0.0.1,127.0.0.1", "hostaddr=127.0.0.1"],
)
def test_a_service_file_keeps_its_hosts(servers, monkeypatch, tmp_path, hosts):
    """Variables for one address would meet the file's list of hosts."""
    path = tmp_path / "services"
    ports = ",".join([str(servers.direct.port)] * (1 + hosts.count(",")))
    path.write_text(f"[cluster]\n{hosts}\nport={ports}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    place = dict.fromkeys(("imdispatcher_db_host", "imdispatcher_db_port"), "")
    settings = settings_of(servers, imdispatcher_db_service="cluster", **place)
    assert psql(servers, settings) == f"{servers.direct.port}\nf\n"


def test_the_tools_get_the_primary_alone(servers):
    with standby(servers) as other:
        other.start()
        place = {"imdispatcher_db_host": "127.0.0.1,127.0.0.1"}
        place["imdispatcher_db_port"] = f"{other.port},{servers.direct.port}"
        where = psql(servers, settings_of(servers, **place))
    assert where == f"{servers.direct.port}\nf\n"


def test_a_refusal_in_another_encoding(servers):
    """As a server with lc_messages = fr_FR.ISO-8859-1 sends it."""
    fields = ["SFATAL", "VFATAL", "C28P01", "Mauthentification échouée", "", ""]
    body = "\0".join(fields).encode("latin-1")

    def refuse():
        connection, _address = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=refuse, daemon=True).start()
        port = server.getsockname()[1]
        parameters = direct(servers, ["127.0.0.1"], [port], imdispatcher_db_sslmode="disable")
        # before psycopg2 2.9 the error has no text
        with pytest.raises(psycopg2.OperationalError, match=r"authentification échouée|Error"):
            Session(parameters)


@pytest.mark.parametrize("given", ["", "-c statement_timeout=77s"])
def test_postgresql_ends_a_session_whose_client_is_away(servers, given):
    """Within 25 s, as it does the listener's: else the session holds its locks for two hours."""
    settings = settings_of(servers, imdispatcher_db_options=given)
    proven = prove(settings.direct, settings.pooled, "postgres")
    with contextlib.closing(psycopg2.connect(**proven.parameters)) as connection:
        cursor = connection.cursor()
        names = ("idle", "interval", "count")
        cursor.execute(
            "SELECT " + ", ".join(f"current_setting('tcp_keepalives_{n}')" for n in names)
        )
        assert cursor.fetchone() == ("10", "5", "3")
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("77s" if given else "0",)
