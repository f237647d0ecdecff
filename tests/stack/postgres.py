"""A PostgreSQL server for the tests."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

import psycopg2

from .process import Process, free_port, give_to_servers, unprivileged

SERVERS = pathlib.Path(os.environ["BUS_ALT_SERVERS"])

# the same, or what ./run test --postgresql names
POSTGRESQL = pathlib.Path(os.environ.get("BUS_ALT_POSTGRESQL", SERVERS))

# the address of a server at the other end of a ``Wire``
THERE = "10.73.0.2"

BIN = max(POSTGRESQL.glob("usr/lib/postgresql/*/bin"))

# fsync protects from power cuts, which the tests do not have
CONFIGURATION = """
password_encryption = 'scram-sha-256'
max_connections = 100
fsync = off
log_line_prefix = '%m [%p] %q%a %u@%d '
timezone = 'GMT'
log_timezone = 'GMT'
"""

# the superuser's socket is in a folder that only its owner and root can enter
ACCESS = """
local all postgres trust
local replication postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all 10.73.0.0/24 scram-sha-256
host all all fd00::/8 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def server_environ() -> dict:
    """The environment in which the unpacked Debian packages find their libraries."""
    libraries = ":".join(str(p) for p in SERVERS.glob("usr/lib/*-linux-gnu*"))
    return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": libraries, "LC_ALL": "C.UTF-8"}


class Postgres:
    """One PostgreSQL server on 127.0.0.1; the superuser connects through a socket.

    :param folder: for data, socket and log
    :param data: a prepared data folder to copy, or None for a new one
    :param primary: make it a streaming standby of this server
    :param wire: run it at the other end of this ``Wire``
    :param options: more settings of PostgreSQL
    :param host: its address, an IPv4 one unless told otherwise
    """

    def __init__(
        self,
        folder: pathlib.Path,
        data: pathlib.Path | None = None,
        primary: Postgres | None = None,
        wire=None,
        options: dict | None = None,
        host: str = "127.0.0.1",
    ):
        self.folder = folder
        self.wire = wire
        self.options = options or {}
        self.data = folder / "data"
        self.host = THERE if wire else host
        self.port = free_port()
        self.process = Process(folder.with_suffix(".log"), signal.SIGINT)
        folder.mkdir()
        give_to_servers(folder)
        folder.chmod(0o700)
        if data:
            # preserves owner and mode
            subprocess.run(["cp", "-a", data, self.data], check=True)
        elif primary:
            self.run_tool(
                *("pg_basebackup", "-D", self.data, "-R", "-c", "fast"),
                *("-h", primary.folder, "-p", primary.port, "-U", "postgres"),
            )
        else:
            self.run_tool(
                "initdb",
                "-D",
                self.data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
            )
        (self.data / "pg_hba.conf").write_text(ACCESS)

    def run_tool(self, name: str, *args):
        """Run one of PostgreSQL's programs as the server's user."""
        subprocess.run(
            [str(arg) for arg in (BIN / name, *args)],
            env=server_environ(),
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            **unprivileged(),
        )

    def start(self):
        (self.data / "postgresql.conf").write_text(CONFIGURATION)
        self.process.start(
            [
                *(self.wire.enter() if self.wire else ()),
                *(BIN / "postgres", "-D", self.data, "-p", self.port),
                *("-c", f"unix_socket_directories={self.folder}"),
                *("-c", f"listen_addresses={self.host}"),
                *(f"--{name}={value}" for name, value in self.options.items()),
            ],
            env=server_environ(),
            cwd=self.folder,
            **({} if self.wire else unprivileged()),
        )
        self.process.wait_for(self._ready, "PostgreSQL accepts connections")
        return self

    def _ready(self) -> bool:
        with contextlib.suppress(psycopg2.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def stop(self, signum: int | None = None):
        """Stop the server: SIGINT is a fast stop, SIGQUIT an immediate one."""
        self.process.stop(signum)

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, dbname: str = "postgres"):
        """Return an autocommit connection of the superuser."""
        connection = psycopg2.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=dbname
        )
        connection.autocommit = True
        return connection

    def execute(self, query: str, params=None, dbname: str = "postgres") -> list[tuple]:
        """Run one statement as superuser and return its rows."""
        with contextlib.closing(self.connect(dbname)) as connection:
            cursor = connection.cursor()
            cursor.execute(query, params)
            return cursor.fetchall() if cursor.description else []

    def create_role(self, name: str, password: str, options: str = "CREATEDB"):
        """Create the role, or give the one of a prepared folder this password."""
        exists = self.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
        verb = "ALTER" if exists else "CREATE"
        self.execute(f'{verb} ROLE "{name}" LOGIN {options} PASSWORD %s', [password])

    def kill_listeners(self):
        """End the backends that the addon opened."""
        for pid, *_others in self.listeners():
            self.execute("SELECT pg_terminate_backend(%s)", [pid])

    def listeners(self) -> list[tuple]:
        """Return (pid, application_name, client_port) of the backends that the addon opened."""
        return self.execute(
            "SELECT pid, application_name, client_port FROM pg_stat_activity"
            " WHERE application_name LIKE '%-listener' ORDER BY pid"
        )
