"""A PgBouncer with the configuration that the project ships."""

from __future__ import annotations

import contextlib
import pathlib

import psycopg2

from .postgres import SERVERS, Postgres, server_environ
from .process import Process, accepts, free_port, give_to_servers, unprivileged

SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "pgbouncer"

# The shipped file ends in its section [pgbouncer]; a second header of that name would
# set everything back to PgBouncer's defaults.
LOCAL = """\
%include {shipped}
listen_addr = 127.0.0.1
listen_port = {port}
auth_file = {users}
unix_socket_dir =
{more}
[databases]
* = host={host} port={server_port}
"""


class PgBouncer:
    """One PgBouncer in front of ``postgres``.

    :param passwords: maps each name of ``userlist.txt.template`` to its password
    :param more: more lines for the section [pgbouncer]
    """

    def __init__(self, folder: pathlib.Path, postgres: Postgres, passwords: dict, more: str = ""):
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self.admin_password = passwords["PGBOUNCER_ADMIN_PASSWORD"]
        self.process = Process(folder.with_suffix(".log"))
        folder.mkdir()
        users = (SHIPPED / "userlist.txt.template").read_text()
        for name, password in passwords.items():
            users = users.replace(f"@{name}@", password)
        files = {
            "pgbouncer.ini": (SHIPPED / "pgbouncer.ini").read_text(),
            "userlist.txt": users,
            "local.ini": LOCAL.format(
                shipped=folder / "pgbouncer.ini",
                host=postgres.host,
                server_port=postgres.port,
                port=self.port,
                users=folder / "userlist.txt",
                more=more,
            ),
        }
        for name, text in files.items():
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
            give_to_servers(folder / name)
        give_to_servers(folder)

    def start(self):
        self.process.start(
            [SERVERS / "usr/sbin/pgbouncer", self.folder / "local.ini"],
            env=server_environ(),
            cwd=self.folder,
            **unprivileged(),
        )
        self.process.wait_for(lambda: accepts(self.port), "PgBouncer accepts connections")
        return self

    def stop(self, signum: int | None = None):
        self.process.stop(signum)

    def admin(self, command: str) -> list[dict]:
        """Run a command of PgBouncer's admin console and return its rows."""
        with contextlib.closing(
            psycopg2.connect(
                host=self.host,
                port=self.port,
                user="pgbouncer",
                password=self.admin_password,
                dbname="pgbouncer",
            )
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(command)
            if not cursor.description:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def forget(self, database: str):
        """Close the pooled server connections to a database that is about to be dropped."""
        with contextlib.suppress(psycopg2.Error):
            self.admin(f'KILL "{database}"')
            self.admin(f'RESUME "{database}"')

    def pool_mode(self) -> str:
        """Return the ``pool_mode`` that counts."""
        (value,) = (row["value"] for row in self.admin("SHOW CONFIG") if row["key"] == "pool_mode")
        return value
