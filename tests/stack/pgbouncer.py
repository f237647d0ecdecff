"""A PgBouncer with the configuration that the project ships."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Callable

import psycopg2

from .postgres import SERVERS, Postgres, server_environ
from .process import Process, accepts, free_port, give_to_servers, unprivileged

# of the machine's Debian, or of the suite sid: ./run test --pooler pgbouncer-sid
NEWEST = os.environ.get("BUS_ALT_POOLER") == "pgbouncer-sid"
PROGRAM = pathlib.Path(os.environ["BUS_ALT_SID"] if NEWEST else SERVERS) / "usr/sbin/pgbouncer"

SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "pgbouncer"

# The shipped file ends in its section [pgbouncer]; a second header of that name would
# reset all its settings to PgBouncer's defaults.
LOCAL = """\
%include {shipped}
listen_addr = 127.0.0.1
listen_port = {port}
auth_file = {users}
unix_socket_dir =
{more}
[databases]
{aliases}* = {server}
"""


def version(program: pathlib.Path) -> str:
    """Return name and version, as the program prints them with ``--version``."""
    printed = subprocess.run(
        [str(program), "--version"],
        env=server_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    name, *words = printed.stdout.split()
    return f"{name} {next(word for word in words if word[0].isdigit())}"


class PgBouncer:
    """One PgBouncer in front of ``postgres``.

    :param passwords: maps each name of ``userlist.txt.template`` to its password
    :param more: more lines for the section [pgbouncer]
    :param aliases: databases by other names: their own name, or a server and their name there
    :param ini: which of the files that the project ships
    """

    def __init__(
        self,
        folder: pathlib.Path,
        postgres: Postgres,
        passwords: dict,
        more: str = "",
        aliases: dict | None = None,
        ini: str = "pgbouncer.ini",
    ):
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self.passwords = passwords
        self.admin_password = passwords["PGBOUNCER_ADMIN_PASSWORD"]
        self.process = Process(folder.with_suffix(".log"))
        folder.mkdir()
        users = (SHIPPED / "userlist.txt.template").read_text()
        for name, password in passwords.items():
            users = users.replace(f"@{name}@", password)
        files = {
            **{
                path.name: path.read_text().replace("/etc/pgbouncer", str(folder))
                for path in SHIPPED.glob("*.ini")
            },
            "userlist.txt": users,
            "local.ini": LOCAL.format(
                shipped=folder / ini,
                server=self._server(postgres),
                port=self.port,
                users=folder / "userlist.txt",
                more=more,
                aliases="".join(
                    self._alias(
                        name, *(target if isinstance(target, tuple) else (postgres, target))
                    )
                    for name, target in (aliases or {}).items()
                ),
            ),
        }
        for name, text in files.items():
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
            give_to_servers(folder / name)
        give_to_servers(folder)

    def start(self):
        self.process.start(
            [PROGRAM, self.folder / "local.ini"],
            env=server_environ(),
            cwd=self.folder,
            **unprivileged(),
        )
        self.process.wait_for(lambda: accepts(self.port), "PgBouncer accepts connections")
        return self

    @staticmethod
    def _server(postgres: Postgres) -> str:
        # a socket in the file system leads out of a network namespace
        host = postgres.folder if postgres.wire else postgres.host
        return f"host={host} port={postgres.port}"

    def _alias(self, name: str, postgres: Postgres, database: str) -> str:
        return f"{name} = {self._server(postgres)} dbname={database}\n"

    def edit(self, old: str, new: str):
        """Replace a text of its configuration while it runs."""
        local = self.folder / "local.ini"
        local.write_text(local.read_text().replace(old, new))
        self.admin("RELOAD")

    def move_to(self, postgres: Postgres, wait: Callable[[], object]):
        """Send everything to another server, as an operator does at a switch-over.

        :param wait: called while PgBouncer is paused
        """
        local = self.folder / "local.ini"
        lines = local.read_text().splitlines()[:-1]
        self.admin("PAUSE")
        wait()
        local.write_text("\n".join([*lines, f"* = {self._server(postgres)}", ""]))
        self.admin("RELOAD")
        self.admin("RESUME")

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

    def version(self) -> str:
        """Return the program's name and version."""
        return version(PROGRAM)

    def pool_mode(self) -> str:
        """Return the ``pool_mode`` that is in effect."""
        (value,) = (row["value"] for row in self.admin("SHOW CONFIG") if row["key"] == "pool_mode")
        return value
