"""A real Odoo server, and databases prepared for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import typing

import psutil
import psycopg2
import requests

from . import series
from .postgres import BIN, POSTGRESQL, Postgres
from .process import CACHE, Process, accepts, free_port, run_folder, start_helper

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
DATABASE = "prepared"
ROLE = "odoo"

# variables of the shell that runs the tests must not configure Odoo: only these are kept
KEPT_ENVIRON = (
    *("PATH", "HOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH"),
    *("LANG", "LC_ALL", "TZ"),
)


class Endpoint(typing.NamedTuple):
    """How to connect to PostgreSQL, or to the pooler in front of it."""

    host: str
    port: int
    user: str
    password: str

    @contextlib.contextmanager
    def connected(self, dbname: str):
        """Yield an autocommit connection to this database."""
        with contextlib.closing(psycopg2.connect(**self._asdict(), dbname=dbname)) as connection:
            connection.autocommit = True
            yield connection


def odoo_environ(extra: dict | None = None) -> dict:
    environ = {name: os.environ[name] for name in KEPT_ENVIRON if name in os.environ}
    return {**environ, "PYTHONUNBUFFERED": "1", **(extra or {})}


def prepared(modules: str, others: pathlib.Path | None = None) -> pathlib.Path:
    """Return a folder with a PostgreSQL data folder and an Odoo data folder.

    Its database ``prepared`` has these modules; made once, then kept in the cache.

    :param modules: module names, separated by commas
    :param others: a folder with third-party addons
    """
    key = hashlib.sha256(f"{series.ODOO_PATH} {BIN} {modules}".encode()).hexdigest()[:12]
    kept = CACHE / f"prepared-{series.SERIES}-{key}"
    if kept.exists():
        return kept
    password = secrets.token_hex(16)
    with run_folder() as folder:
        postgres = Postgres(folder / "postgres").start()
        try:
            postgres.create_role(ROLE, password)
            odoo = Odoo(
                folder / "odoo",
                Endpoint(postgres.host, postgres.port, ROLE, password),
                addon=False,
                others=others,
            )
            odoo.run("-i", modules, "--without-demo=all", "--stop-after-init", "--no-http")
        finally:
            postgres.stop()
        made = kept.with_name(f"{kept.name}.{secrets.token_hex(4)}")
        made.mkdir()
        postgres.data.rename(made / "pgdata")
        odoo.data_dir.rename(made / "odoo")
    try:
        made.rename(kept)
    except OSError:  # another run has made the same folder meanwhile
        shutil.rmtree(made)
    return kept


def connections_of(process: psutil.Process) -> list:
    """Return the TCP connections of a process."""
    # psutil before 6.0 (Odoo 14.0) calls it connections
    return getattr(process, "net_connections", process.connections)("tcp")


class Odoo:
    """One Odoo server on 127.0.0.1.

    :param folder: for configuration, data and log
    :param db: the endpoint in Odoo's ``db_*`` settings
    :param workers: 0 for a threaded server, else the number of HTTP workers
    :param addon: load bus_alt_connection
    :param options: more lines for odoo.conf
    :param environ: more environment variables
    :param data: a prepared Odoo data folder to copy
    :param arguments: of the server's command line, after ``-c``
    :param others: a folder with third-party addons, and with what they import
    :param named: name the database with ``db_name``, else with ``dbfilter``
    """

    def __init__(
        self,
        folder: pathlib.Path,
        db: Endpoint,
        *,
        database: str = DATABASE,
        workers: int = 0,
        addon: bool = True,
        options: dict | None = None,
        environ: dict | None = None,
        data: pathlib.Path | None = None,
        addons_path: str | None = None,
        others: pathlib.Path | None = None,
        named: bool = True,
        arguments: tuple = (),
    ):
        self.folder = folder
        self.database = database
        self.workers = workers
        self.arguments = arguments
        self.environ = odoo_environ(environ)
        self.python = sys.executable
        self.port = free_port()
        self.gevent_port = free_port()
        self.data_dir = folder / "data"
        self.conf = folder / "odoo.conf"
        self.process = Process(folder / "odoo.log")
        folder.mkdir()
        if data:
            shutil.copytree(data, self.data_dir)
        if addons_path is None:
            addons_path = f"{series.ADDONS},{CHECKOUT}"
        if others:
            addons_path = f"{addons_path},{others}"
            self.environ["PYTHONPATH"] = f"{self.environ['PYTHONPATH']}:{others}"
        self.options = {
            "addons_path": addons_path,
            "server_wide_modules": series.SERVER_WIDE + (",bus_alt_connection" if addon else ""),
            "data_dir": self.data_dir,
            "db_host": db.host,
            "db_port": db.port,
            "db_user": db.user,
            "db_password": db.password,
            **({"db_name": database} if named else {"dbfilter": f"^{database}$"}),
            "pg_path": POSTGRESQL / "tools",
            "http_interface": "127.0.0.1",
            "http_port": self.port,
            series.GEVENT_PORT: self.gevent_port,
            "workers": workers,
            "max_cron_threads": 0,
            **(options or {}),
        }
        self.conf.touch(0o600)
        self.conf.write_text(
            "[options]\n" + "".join(f"{name} = {value}\n" for name, value in self.options.items())
        )

    @property
    def bus_port(self) -> int:
        return self.gevent_port if self.workers else self.port

    def argv(self, *args) -> list:
        return [self.python, os.environ["BUS_ALT_ODOO"], "-c", str(self.conf), *args]

    def suite_environ(self) -> dict:
        """Return the environment of a program that imports Odoo and ``tests.stack``."""
        suite = {name: value for name, value in os.environ.items() if name.startswith("BUS_ALT_")}
        return {**self.environ, **suite}

    def run(self, *args, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess:
        """Run Odoo with these arguments until it ends."""
        return self._run(self.argv(*args), check, timeout)

    def run_command(self, name: str, *args, text: str = "") -> subprocess.CompletedProcess:
        """Run one of Odoo's commands until it ends.

        :param text: its standard input
        """
        python, odoo, *conf = self.argv()
        return self._run([python, odoo, name, *conf, *map(str, args)], True, 120, text)

    def buscheck(self, *args, rc: bool = False) -> subprocess.CompletedProcess:
        """Run the addon's command as in README.

        :param rc: name the configuration with ODOO_RC, as README does for the wheel
        """
        python, odoo, *conf = self.argv()
        if rc:
            self.environ["ODOO_RC"] = str(self.conf)
            return self._run([python, odoo, "buscheck", *args], False, 60)
        addons = f"--addons-path={self.options['addons_path']}"
        return self._run([python, odoo, addons, "buscheck", *conf, *args], False, 60)

    def ready(self, query: str = "", headers: dict | None = None) -> requests.Response:
        """Request ``/bus_alt_connection/ready`` from the process that has the websockets."""
        url = f"http://127.0.0.1:{self.bus_port}/bus_alt_connection/ready{query}"
        return requests.get(url, timeout=10, headers=headers)

    def _run(
        self, argv: list, check: bool, timeout: float, text: str = ""
    ) -> subprocess.CompletedProcess:
        done = subprocess.run(
            argv,
            env=self.environ,
            cwd=self.folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise RuntimeError(f"odoo ended with {done.returncode}\n{done.stderr[-4000:]}")
        return done

    def launch(self):
        """Start the server without waiting for it."""
        self.process.start(self.argv(*self.arguments), env=self.environ, cwd=self.folder)
        return self

    def start(self):
        """Start the server and wait until it answers on all its ports."""
        return self.launch().wait()

    def wait(self):
        """Wait until the server that was launched answers on all its ports."""
        self.process.wait_for(self.answers, "Odoo answers", timeout=120)
        if self.workers:
            self.process.wait_for(lambda: accepts(self.gevent_port), "the gevent port answers")
        return self

    def answers(self) -> bool:
        """Tell whether the login page is served."""
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.url}/web/login", timeout=60).ok
        return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, signum: int | None = None):
        # a threaded server waits for its longpolling requests, up to 50 s
        self.process.stop(signum, timeout=2 if series.LONGPOLLING else 20)

    def log(self) -> str:
        return self.process.text()

    def tree(self) -> list[psutil.Process]:
        """The server's processes."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def connections_to(self, port: int) -> list[tuple]:
        """Return (pid, local port) of each TCP connection of the server to this port."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                for connection in connections_of(process):
                    if connection.raddr and connection.raddr.port == port:
                        found.append((process.pid, connection.laddr.port))
        return found


class NotCommitted(Exception):
    """Odoo got an error instead of a commit."""


class Sender:
    """A second Odoo process that sends bus notifications the way Odoo's own code does.

    :param odoo: the server whose configuration and database it uses
    """

    def __init__(self, odoo: Odoo):
        self.log = odoo.folder / "sender.log"
        with self.log.open("ab") as log:
            self.popen = start_helper(
                [odoo.python, "-m", "tests.stack.sender", odoo.conf, odoo.database],
                cwd=CHECKOUT,
                env=odoo.suite_environ(),
                stderr=log,
            )
        if self._answer() != {"ready": True}:
            raise RuntimeError(self.log.read_text())

    def _answer(self) -> dict:
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"the sender ended\n{self.log.read_text()[-3000:]}")
        return json.loads(line)

    def _request(self, **request) -> dict:
        self.popen.stdin.write(json.dumps(request) + "\n")
        self.popen.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise NotCommitted(answer["error"])
        return answer

    def send(self, channel: str, text: str) -> dict:
        """Commit one notification; return ``begin`` and ``end`` of Odoo's commit (monotonic, s).

        Between them is ``committed``, when PostgreSQL has it and the NOTIFY begins.

        :raises NotCommitted: whether PostgreSQL has the notification is not known then
        """
        return self._request(channel=channel, text=text)

    def trigger(self, job: str) -> dict:
        """Commit a wake-up of this cron job, as ``send`` does a notification."""
        return self._request(job=job)

    def delay(self) -> dict:
        """Commit a job of queue_job, as ``send`` does a notification; return its ``uuid`` too."""
        return self._request(delay=True)

    def close(self):
        self.popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(10)
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()
