"""A Patroni cluster as in docs/patroni.rst: etcd, two PostgreSQL, HAProxy and PgBouncer.

Each of three machines (``network.Lan``) has an etcd, two of them Patroni and its PostgreSQL.
HAProxy, PgBouncer and Odoo run in the program's own namespace.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess

import psycopg2
import requests

from . import guide
from .network import Lan, Namespace
from .odoo import DATABASE, ROLE, Endpoint, Odoo, prepared
from .pgbouncer import PgBouncer
from .postgres import BIN, Postgres, server_environ
from .process import Process, accepts, give_to_servers, run_folder, started, unprivileged

PROGRAMS = pathlib.Path(os.environ.get("BUS_ALT_CLUSTER", "/"))
PATRONI = pathlib.Path(os.environ.get("BUS_ALT_PATRONI", "/")) / "bin"

# Patroni's Python may be in a folder that only root can read
READ_ALL_FILES = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


class Recipe:
    """That recipe, with addresses in place of its names.

    :param addresses: of the machines, the first one's first
    """

    def __init__(self, addresses: list[str]):
        self._addresses = addresses
        patroni, haproxy, pgbouncer, conf = guide.page_blocks("docs/patroni.rst")
        self._patroni, self._haproxy = patroni.text, haproxy.text
        (self.pooled_host, self.pooled_port) = re.findall(
            r"^\* = host=(\S+) port=(\d+)$", pgbouncer.text, re.M
        )[0]
        self.odoo = guide.options(self._with_addresses(conf.text))

    def _with_addresses(self, text: str) -> str:
        for kind in ("pg", "etcd"):
            for i, address in enumerate(self._addresses, start=1):
                text = text.replace(f"{kind}{i}.example.com", address)
        return text

    def patroni(self, number: int) -> dict:
        """Return the configuration of this member, counted from 1."""
        import yaml  # not installed for the series without the documentation's tests

        text = re.sub(r"\bpg1\b", f"pg{number}", self._patroni)
        return yaml.safe_load(self._with_addresses(text))

    def haproxy(self) -> str:
        return self._with_addresses(self._haproxy)


class Etcd:
    """One member of etcd.

    :param members: maps the name of each to its address
    """

    def __init__(self, folder: pathlib.Path, machine: Namespace, name: str, members: dict):
        self._machine, self._folder = machine, folder
        self._address = members[name]
        self.process = Process(folder.with_suffix(".log"))
        client, peer = (f"http://{self._address}:{port}" for port in (2379, 2380))
        peers = ",".join(f"{member}=http://{host}:2380" for member, host in members.items())
        self._options = [
            f"--name={name}",
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={peers}",
        ]
        folder.mkdir()
        give_to_servers(folder)

    def start(self):
        program = PROGRAMS / "usr/bin/etcd"
        environ = {"PATH": os.environ["PATH"]}
        self.process.start([*self._machine.enter(), program, *self._options], env=environ)
        return self

    def wait(self):
        """Wait until it answers, which takes more than half of the members."""
        self.process.wait_for(self._healthy, "etcd answers")

    def _healthy(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{self._address}:2379/health", timeout=2).ok
        return False

    def stop(self, signum: int | None = None):
        self.process.stop(signum)


class Member:
    """One PostgreSQL, and the Patroni that starts and stops it.

    :param configuration: Patroni's, from the recipe
    :param data: a prepared data folder to copy, or None for a copy of the primary
    """

    def __init__(
        self,
        folder: pathlib.Path,
        machine: Namespace,
        configuration: dict,
        passwords: dict,
        data: pathlib.Path | None = None,
    ):
        import yaml

        self.name = configuration["name"]
        self.folder, self._machine = folder, machine
        self.process = Process(folder.with_suffix(".log"))
        self.configuration_file = folder / "patroni.yml"
        server = configuration["postgresql"]
        self.address = server["connect_address"].split(":")[0]
        if data:
            self._prepare(data, passwords)
        else:
            folder.mkdir()
            folder.chmod(0o700)
            give_to_servers(folder)
        server.update(data_dir=str(folder / "data"), bin_dir=str(BIN), pgpass=str(folder / "pass"))
        server["parameters"] = {"unix_socket_directories": str(folder)}
        server["pg_hba"].insert(0, "local all postgres trust")
        for role in server["authentication"].values():
            role["password"] = passwords[role["username"]]
        self.configuration_file.write_text(yaml.safe_dump(configuration))
        give_to_servers(self.configuration_file)

    def _prepare(self, data: pathlib.Path, passwords: dict):
        postgres = Postgres(self.folder, data).start()
        try:
            postgres.create_role("replicator", passwords["replicator"], "REPLICATION")
            for name in ("postgres", ROLE):
                postgres.create_role(name, passwords[name], "")
        finally:
            postgres.stop()

    def start(self):
        self.process.start(
            [*self._machine.enter(*READ_ALL_FILES), PATRONI / "patroni", self.configuration_file],
            env=server_environ(),
            cwd=self.folder,
        )
        return self

    def execute(self, query: str, dbname: str = "postgres") -> list[tuple]:
        """Run one statement as superuser and return its rows."""
        with contextlib.closing(
            psycopg2.connect(host=str(self.folder), user="postgres", dbname=dbname)
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []

    def primary_since(self) -> str | None:
        """Return when this server started, if it is a primary; else None."""
        with contextlib.suppress(psycopg2.Error):
            ((standby, since),) = self.execute(
                "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text"
            )
            return None if standby else since
        return None

    def postmaster(self) -> int:
        """Return the process that all others of this PostgreSQL are children of."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def stop(self):
        """Kill Patroni, and shut PostgreSQL down at once; the data is not needed any more."""
        self.process.stop(signal.SIGKILL)
        # PostgreSQL has another process session than Patroni and goes on
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.postmaster(), signal.SIGQUIT)


class HaProxy:
    """HAProxy with the recipe's configuration; a ``Postgres`` to ``PgBouncer``."""

    wire = None

    def __init__(self, folder: pathlib.Path, text: str, host: str, port: int):
        self.host, self.port = host, port
        self.process = Process(folder.with_suffix(".log"))
        self._conf = folder / "haproxy.cfg"
        folder.mkdir()
        self._conf.write_text(text)

    def start(self):
        libraries = ":".join(map(str, PROGRAMS.glob("usr/lib/*-linux-gnu*")))
        self.process.start(
            [PROGRAMS / "usr/sbin/haproxy", "-db", "-f", self._conf],
            env={"LD_LIBRARY_PATH": libraries},
            **unprivileged(),
        )
        self.process.wait_for(lambda: accepts(self.port), "HAProxy accepts connections")
        return self

    def stop(self):
        self.process.stop()


class Cluster:
    """All of it, with a database of Odoo's."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.prepared = prepared("bus")
        self.lan = Lan(folder, 3)
        addresses = self.lan.addresses[1:]
        passwords = {name: secrets.token_hex(16) for name in ("postgres", "replicator", ROLE)}
        self.recipe = recipe = Recipe(addresses)
        members = {f"etcd{i}": address for i, address in enumerate(addresses, start=1)}
        self.etcd = [
            Etcd(folder / name, machine, name, members)
            for name, machine in zip(members, self.lan.machines)
        ]
        self.members = [
            Member(folder / f"pg{i}", machine, recipe.patroni(i), passwords, data)
            for i, machine, data in zip((1, 2), self.lan.machines, (self.prepared / "pgdata", None))
        ]
        host, port = recipe.pooled_host, int(recipe.pooled_port)
        self.haproxy = HaProxy(folder / "haproxy", recipe.haproxy(), host, port)
        pooler = {
            "ODOO_DB_PASSWORD": passwords[ROLE],
            "PGBOUNCER_ADMIN_PASSWORD": secrets.token_hex(16),
        }
        self.pgbouncer = PgBouncer(folder / "pgbouncer", self.haproxy, pooler)
        self.pooled = Endpoint(self.pgbouncer.host, self.pgbouncer.port, ROLE, passwords[ROLE])

    def start(self):
        for etcd in self.etcd:
            etcd.start()
        for etcd in self.etcd:
            etcd.wait()
        first, second = self.members
        first.start().process.wait_for(first.primary_since, "the first member is the primary")
        second.start()
        self.haproxy.start()
        self.pgbouncer.start()
        return self

    def wait(self):
        """Wait until one member is the primary and the other one its synchronous standby.

        ``start`` does not: Odoo may be started meanwhile.
        """
        self.members[0].process.wait_for(self._is_complete, "the cluster is complete", 120)

    def _is_complete(self) -> bool:
        with contextlib.suppress(requests.RequestException, ValueError):
            rows = requests.get(f"http://{self.members[0].address}:8008/cluster", timeout=2).json()
            states = {row["role"]: row["state"] for row in rows["members"]}
            return states == {"leader": "running", "sync_standby": "streaming"}
        return False

    def primary(self) -> Member:
        """Return the member that is the primary."""
        (primary,) = (member for member in self.members if member.primary_since())
        return primary

    def standby(self) -> Member:
        """Return the member that is not the primary."""
        (standby,) = (member for member in self.members if not member.primary_since())
        return standby

    def number(self, member: Member) -> int:
        """Return which of the machines it runs on, counted from 1."""
        return self.members.index(member) + 1

    def patronictl(self, *args):
        """Run a command of Patroni's operator."""
        words = [PATRONI / "patronictl", "-c", self.members[0].configuration_file, *args]
        done = subprocess.run(words, env=server_environ(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    @contextlib.contextmanager
    def odoo(self, number: int, auto: bool = False, **options):
        """So many Odoo servers on one database, set as the recipe has it.

        :param auto: name no host: the addon asks the pooled connection
        """
        settings = {**options.pop("options", {}), **self.recipe.odoo}
        if auto:
            settings["imdispatcher_db_host"] = "auto"
            settings.pop("imdispatcher_db_port", None)
        for name in ("db_host", "db_port"):
            # those of PgBouncer, which has a free port here
            settings.pop(name)
        with contextlib.ExitStack() as stack:
            servers = []
            for i in range(1, number + 1):
                odoo = Odoo(
                    self.folder / f"odoo{i}",
                    self.pooled,
                    database=DATABASE,
                    data=self.prepared / "odoo",
                    options=settings,
                    **options,
                )
                stack.callback(shutil.rmtree, odoo.data_dir, ignore_errors=True)
                stack.callback(odoo.stop, signal.SIGKILL)
                servers.append(odoo.launch())
            for odoo in servers:
                odoo.wait()
            yield servers

    def stop(self):
        for part in (self.pgbouncer, self.haproxy, *reversed(self.members), *self.etcd):
            part.stop()
        self.lan.remove()


@contextlib.contextmanager
def running_cluster():
    """A running ``Cluster`` that leaves nothing behind; in a namespace of its own."""
    with run_folder() as folder, started(Cluster(folder)) as cluster:
        yield cluster
