"""Other poolers than PgBouncer, from Debian's suite sid, and which one this run has.

``BUS_ALT_POOLER`` names it, ``BUS_ALT_POOL_MODE`` is its mode: ``./run test --pooler NAME
--pool-mode MODE``. Each is set up in as few lines as it needs; PgBouncer alone has the
configuration that the project ships.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import subprocess

from .pgbouncer import PgBouncer, version
from .postgres import Postgres, server_environ
from .process import Process, accepts, free_port, give_to_servers, unprivileged

NAME = os.environ.get("BUS_ALT_POOLER", "pgbouncer")
MODE = os.environ.get("BUS_ALT_POOL_MODE", "transaction")
SIZE = 20  # server connections for one database, as in pgbouncer.ini


def sid(program: str) -> pathlib.Path:
    """Return where a program of the suite sid is."""
    return pathlib.Path(os.environ["BUS_ALT_SID"]) / program


class Pooler:
    """A pooler in front of ``postgres`` on 127.0.0.1.

    :param users: maps each role that may connect to its password
    """

    def __init__(self, folder: pathlib.Path, postgres: Postgres, users: dict):
        self.folder = folder
        self.host, self.port = "127.0.0.1", free_port()
        self.postgres, self.users = postgres, users
        self.process = Process(folder.with_suffix(".log"), self.stop_signal)
        folder.mkdir()
        for name, text in self.files().items():
            (folder / name).touch(0o600)
            (folder / name).write_text(text)
            give_to_servers(folder / name)
        give_to_servers(folder)

    stop_signal = signal.SIGTERM
    program = ""

    def version(self) -> str:
        """Return the program's name and version."""
        return version(sid(self.program))

    def files(self) -> dict[str, str]:
        """Return the text of each file of the configuration."""
        raise NotImplementedError

    def argv(self) -> list:
        raise NotImplementedError

    def start(self):
        self.process.start(self.argv(), **self._options())
        self.process.wait_for(
            lambda: accepts(self.port), f"{type(self).__name__} accepts connections"
        )
        return self

    def stop(self, signum: int | None = None):
        self.process.stop(signum)

    def forget(self, database: str):
        """A database is about to be dropped: PostgreSQL ends the connections to it."""

    def _options(self) -> dict:
        environ = {**server_environ(), "HOME": str(self.folder)}
        return {"env": environ, "cwd": self.folder, **unprivileged()}


ODYSSEY = """\
daemonize no
log_to_stdout yes
log_format "%t %l (%c) %h %m\\n"
log_session no
listen {{
    host "127.0.0.1"
    port {port}
}}
storage "postgresql" {{
    type "remote"
    host "127.0.0.1"
    port {server}
}}
database default {{
{users}}}
"""

# what the pages say
ODYSSEY_USER = """\
    user "{name}" {{
        authentication "scram-sha-256"
        password "{password}"
        storage "postgresql"
        storage_password "{password}"
        pool "{mode}"
        pool_size {size}
        pool_discard {discard}
        pool_rollback yes
    }}
"""


class Odyssey(Pooler):
    program = "usr/bin/odyssey"

    def version(self) -> str:
        return super().version().capitalize()

    def files(self):
        discard = "yes" if MODE == "session" else "no"
        users = "".join(
            ODYSSEY_USER.format(name=name, password=password, mode=MODE, size=SIZE, discard=discard)
            for name, password in self.users.items()
        )
        text = ODYSSEY.format(port=self.port, server=self.postgres.port, users=users)
        return {"odyssey.conf": text}

    def argv(self):
        return [sid(self.program), self.folder / "odyssey.conf"]


PGAGROAL = """\
[pgagroal]
host = 127.0.0.1
port = {port}
unix_socket_dir = {folder}
log_type = console
log_level = info
max_connections = {all}
allow_unknown_users = off
idle_timeout = 600
pipeline = {mode}
ev_backend = epoll
update_process_title = never

[primary]
host = {socket}
port = {server}
"""


class Pgagroal(Pooler):
    """2.1.0 exits where PostgreSQL's TCP port has five digits, so it connects through the Unix
    socket. It looks for the socket with its own port at the end of the name."""

    program = "usr/bin/pgagroal"

    def files(self):
        text = PGAGROAL.format(
            port=self.port,
            folder=self.folder,
            all=4 * SIZE,
            mode=MODE,
            socket=self.folder,
            server=self.postgres.port,
        )
        hba = "".join(f"host all {user} 127.0.0.1/32 scram-sha-256\n" for user in self.users)
        limits = "".join(f"all {user} {4 * SIZE} 1 1\n" for user in self.users)
        return {
            "pgagroal.conf": text,
            "pgagroal_hba.conf": hba,
            "pgagroal_databases.conf": limits,
        }

    def argv(self):
        names = {"c": "", "a": "_hba", "l": "_databases", "u": "_users"}
        files = [(f"-{key}", f"{self.folder}/pgagroal{name}.conf") for key, name in names.items()]
        return [sid(self.program), *itertools.chain(*files)]

    def start(self):
        if not (self.folder / ".pgagroal").exists():
            name = f".s.PGSQL.{self.postgres.port}"
            (self.folder / f"{name}.{self.port}").symlink_to(self.postgres.folder / name)
            self._admin("master-key", password="of these tests")
            for name, password in self.users.items():
                self._admin("user", "add", "-U", name, password=password)
        return super().start()

    def _admin(self, *command: str, password: str):
        options = self._options()
        options["env"]["PGAGROAL_PASSWORD"] = password
        program, users = sid("usr/bin/pgagroal-admin"), self.folder / "pgagroal_users.conf"
        subprocess.run([program, "-f", users, *command], check=True, **options)


PGPOOL = """\
backend_clustering_mode = 'raw'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
pcp_listen_addresses = ''
pcp_port = {pcp}
pcp_socket_dir = '{folder}'
pid_file_name = '{folder}/pgpool.pid'
work_dir = '{folder}'
backend_hostname0 = '127.0.0.1'
backend_port0 = {server}
num_init_children = {all}
max_pool = 1
connection_cache = on
enable_pool_hba = on
pool_passwd = '{folder}/pool_passwd'
"""


class Pgpool(Pooler):
    """It has session mode alone: each of its processes has a client and a server connection."""

    stop_signal = signal.SIGINT
    program = "usr/sbin/pgpool"

    def files(self):
        text = PGPOOL.format(
            port=self.port,
            folder=self.folder,
            pcp=free_port(),
            server=self.postgres.port,
            all=4 * SIZE,
        )
        return {
            "pgpool.conf": text,
            "pool_hba.conf": "host all all 127.0.0.1/32 scram-sha-256\n",
            "pool_passwd": "".join(f"{name}:TEXT{word}\n" for name, word in self.users.items()),
        }

    def argv(self):
        at = self.folder
        files = ["-f", at / "pgpool.conf", "-a", at / "pool_hba.conf", "-k", at / ".pgpoolkey"]
        return [sid(self.program), *files, "-n"]


KINDS = {"odyssey": Odyssey, "pgagroal": Pgagroal, "pgpool": Pgpool}


def pooler(folder: pathlib.Path, postgres: Postgres, passwords: dict):
    """Return the pooler of this run.

    :param passwords: as for ``PgBouncer``
    """
    if NAME in KINDS:
        return KINDS[NAME](folder, postgres, {"odoo": passwords["ODOO_DB_PASSWORD"]})
    return PgBouncer(folder, postgres, passwords, more=f"pool_mode = {MODE}")
