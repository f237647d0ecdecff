"""One compose file that is up: its services, a client's way in, and a second Odoo that commits."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import typing

from ..stack.odoo import CHECKOUT, Sender
from ..stack.process import start_helper
from .engine import Engine

# what an operator has beside the compose file
FILES = (
    "bus_alt_connection",
    "pgbouncer",
    "deploy",
    "docker-compose.yml",
    "Dockerfile",
    ".dockerignore",
)


class Site(typing.NamedTuple):
    """Where a client finds an Odoo, as ``BusClient`` asks."""

    url: str
    bus_port: int


class Project:
    """A folder with a compose file, and what ``docker compose`` makes of it.

    :param name: of the project; its containers' names begin with it
    :param environ: the variables of the compose file
    :param text: the compose file, or None for the one of the checkout
    :param conf: of the service of Odoo, or None where its settings are in its environment
    :param port: where its pages are, on 127.0.0.1
    :param folder: the name of its folder, by default its own; projects with the same name have the
        same volumes
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        environ: dict,
        text: str | None = None,
        files: dict | None = None,
        port: int = 8069,
        bus_port: int | None = None,
        folder: str = "",
    ):
        self.engine, self.name, self.environ = engine, name, environ
        self.folder = engine.folder / (folder or name)
        self.port, self.bus_port = port, bus_port or port
        self.profiles: list[str] = []
        self.folder.mkdir()
        for entry in FILES:
            source = CHECKOUT / entry
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, self.folder / entry, ignore=ignore)
            elif source.exists():
                shutil.copy(source, self.folder / entry)
        for path, content in {
            **(files or {}),
            **({"docker-compose.yml": text} if text else {}),
        }.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(content)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def at(self, port: int) -> Site:
        """Return another place where this database is served."""
        return Site(f"http://127.0.0.1:{port}", port)

    def uid_of(self, pid: int) -> int:
        """Return the user id of a process, which the engine names by this number."""
        lines = self.engine.run("cat", f"/proc/{pid}/status").splitlines()
        return int(next(line for line in lines if line.startswith("Uid:")).split()[1])

    def words(self, *args) -> list[str]:
        profiles = [f"--profile={name}" for name in self.profiles]
        place = f"--project-directory={self.folder}"
        return ["compose", f"--project-name={self.name}", place, *profiles, *map(str, args)]

    def compose(self, *args, **options) -> subprocess.CompletedProcess:
        """Run ``docker compose`` with these arguments, as ``Engine.docker`` does."""
        return self.engine.docker(*self.words(*args), environ=self.environ, **options)

    def up(self, *args, timeout: int = 300):
        """Start the services and wait until all of them are healthy."""
        self.compose(
            "up", "--detach", "--wait", f"--wait-timeout={timeout}", *args, timeout=timeout + 60
        )
        return self

    def down(self, *args):
        self.compose("down", "--timeout=20", *args)

    def exec(self, service: str, *command, **options) -> subprocess.CompletedProcess:
        return self.compose("exec", "-T", service, *command, **options)

    def container(self, service: str) -> str:
        """Return the id of the container of a service."""
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def inspect(self, service: str) -> dict:
        (found,) = json.loads(self.engine.docker("inspect", self.container(service)).stdout)
        return found

    def services(self) -> list[str]:
        return self.compose("config", "--services").stdout.split()

    def log(self, *services: str) -> str:
        done = self.compose("logs", "--no-color", "--no-log-prefix", *services)
        return done.stdout + done.stderr

    def health(self) -> dict:
        """Return the state of each container, by its service."""
        rows = self.compose("ps", "--all", "--format=json").stdout.splitlines()
        return {row["Service"]: row["Health"] or row["State"] for row in map(json.loads, rows)}

    def networks(self, service: str) -> list[str]:
        return list(self.inspect(service)["NetworkSettings"]["Networks"])

    def shell(self, service: str, script: str) -> str:
        """Run Python inside ``odoo shell`` of a service and return what it prints."""
        return self.exec(
            service, "odoo", "shell", "--no-http", "--database=odoo", text=script
        ).stdout

    @contextlib.contextmanager
    def running(self, *args, before=None, keep_volumes: bool = False):
        """The project, up; removed with its volumes and images afterwards.

        :param before: a function that gets the project before it is up
        :param keep_volumes: for the next project of this name
        """
        try:
            if before:
                before(self)
            yield self.up(*args)
        except BaseException:
            with contextlib.suppress(Exception):
                print(self.compose("ps", "--all", check=False).stdout, self.log()[-8000:])
            raise
        finally:
            volumes = [] if keep_volumes else ["--volumes"]
            self.profiles = ["*"]
            self.compose("down", *volumes, "--timeout=20", "--rmi=local", check=False)


def with_database(project: Project):
    """Make the database of a recipe that has none, once for all projects of its name."""
    volumes = {f"{project.name}_{volume}" for volume in ("postgres", "odoo")}
    if not volumes <= project.engine.volumes:
        project.engine.volumes |= volumes
        project.up("--build", "postgres", "pgbouncer")
        init = ("--database=odoo", "--init=mail", "--stop-after-init")
        project.compose("run", "--rm", "-T", "--no-deps", "odoo", *init, timeout=600)


class ContainerSender(Sender):
    """A second Odoo that commits what it is told, in a container of its own.

    :param container: whose image, variables and mounts it has, by default the service's ``odoo``
    :param network: where it is, by default in the project's
    """

    def __init__(self, project: Project, container: str = "", network: str = ""):
        self.log = project.folder / "sender.log"
        self._engine = project.engine
        self._name = f"{project.name}-sender-{time.monotonic_ns()}"
        container = container or project.container("odoo")
        (found,) = json.loads(project.engine.docker("inspect", container).stdout)
        environ = {
            **dict(pair.split("=", 1) for pair in found["Config"]["Env"]),
            "PYTHONPATH": "/checkout",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        mounts = [
            f"--volume={mount['Source']}:{mount['Destination']}:ro"
            for mount in found["Mounts"]
            if mount["Type"] == "bind"
        ]
        checkout = project.folder / "checkout"
        if not checkout.exists():
            shutil.copytree(
                CHECKOUT / "tests", checkout / "tests", ignore=shutil.ignore_patterns("__pycache__")
            )
        argv = project.engine.argv(
            *("run", "--rm", "--interactive", f"--name={self._name}"),
            f"--network={network or project.networks('odoo')[0]}",
            *(f"--env={name}" for name in environ),
            *mounts,
            f"--volume={checkout}:/checkout:ro",
            *("--entrypoint=python3", found["Config"]["Image"], "-c", LAUNCH),
        )
        with self.log.open("ab") as log:
            self.popen = start_helper(argv, env={**environ, **project.engine.environ()}, stderr=log)
        if self._answer() != {"ready": True}:
            raise RuntimeError(self.log.read_text())

    def close(self):
        super().close()
        self._engine.docker("rm", "--force", self._name, check=False)


# where Odoo is in the image, tests.stack asks the environment for
LAUNCH = """
import os, pathlib, sys
import odoo, odoo.release
folder = pathlib.Path(odoo.release.__file__).parents[1]
os.environ.update(BUS_ALT_ADDONS=str(folder / "odoo/addons"), BUS_ALT_ODOO_PATH=str(folder))
from tests.stack.sender import main
main(os.environ.get("ODOO_RC", "/etc/odoo/odoo.conf"), "odoo")
"""
