"""A Docker engine: one of the suite's own in private namespaces, or the machine's.

The suite's own has its root file system, its network and its processes for itself: when its first
process ends, containers, bridges and packet filters are gone with it. Built images stay in the
cache, for the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess

from ..stack.process import CACHE, Process, wait_until

HOME = CACHE / "compose"

# what the official images say of themselves, for the stand-ins: instructions of a Dockerfile
IMAGES = {
    "debian": ("debian:12-slim", ['CMD ["bash"]']),
    "postgres": (
        "postgres:16",
        [
            "ENV PGDATA /var/lib/postgresql/data",
            "ENV PATH /usr/lib/postgresql/15/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ENV LANG C.UTF-8",
            "VOLUME /var/lib/postgresql/data",
            "EXPOSE 5432",
            "STOPSIGNAL SIGINT",
            'ENTRYPOINT ["entrypoint.sh"]',
            'CMD ["postgres"]',
        ],
    ),
    "nginx": (
        "nginx:1",
        ["EXPOSE 80", "STOPSIGNAL SIGQUIT", 'CMD ["nginx", "-g", "daemon off;"]'],
    ),
    "odoo": (
        "odoo:19.0",
        [
            "ENV ODOO_RC /etc/odoo/odoo.conf",
            "ENV LANG C.UTF-8",
            "VOLUME /var/lib/odoo",
            "VOLUME /mnt/extra-addons",
            "EXPOSE 8069 8071 8072",
            "USER odoo",
            'ENTRYPOINT ["entrypoint.sh"]',
            'CMD ["odoo"]',
        ],
    ),
}

# run by the first process of the engine's namespaces; $0: the new root, $1: the folder for its
# data, $2…: folders that are there under the same names
ENTER = """
mount --make-rprivate /
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount -t sysfs sysfs "$0/sys"
mount --rbind /sys/fs/cgroup "$0/sys/fs/cgroup"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/run"
mount -t tmpfs tmpfs "$0/tmp"
mkdir -p "$0/var/lib/docker"
mount --bind "$1" "$0/var/lib/docker"
root=$0
shift
for folder; do mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"; done
cd "$root"
mkdir -p old
pivot_root . old
umount -l /old
ip link set lo up
exec tini -- sleep infinity
"""


class Failed(Exception):
    """A command of Docker's ended with an error; the text is what it printed."""


class Engine:
    """The machine's engine.

    :param folder: for files of this run
    :param first: the first process of the engine's namespaces, where it was started already; 0 for
        the machine's own
    """

    def __init__(self, folder: pathlib.Path, first: int = 0):
        self.folder = folder
        self.first = first
        self.volumes: set[str] = set()
        self._tags: set[str] = set()

    def start(self):
        return self

    def stop(self):
        self.remove_own()

    def remove_own(self):
        """Remove what outlives a project: the volumes that several share, and what was built."""
        for kind, names in (("volume", self.volumes), ("image", self._tags)):
            if names:
                self.docker(kind, "rm", "--force", *names, check=False)

    def build(self, tag: str, folder: pathlib.Path):
        """Build an image, which is removed at the end."""
        self._tags.add(tag)
        self.docker("build", f"--tag={tag}", folder, timeout=600)

    def argv(self, *args) -> list[str]:
        """Return the command line of Docker's program with these arguments."""
        return [*self.inside(), "docker", *map(str, args)]

    def docker(
        self,
        *args,
        check: bool = True,
        text: str | None = None,
        environ: dict | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess:
        """Run Docker's program.

        :param text: its standard input
        :param environ: more environment variables
        :raises Failed: it ended with an error, and ``check`` is set
        """
        done = subprocess.run(
            self.argv(*args),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            env={**self.environ(), **(environ or {})},
            timeout=timeout,
        )
        if check and done.returncode:
            raise Failed(f"docker {' '.join(map(str, args))}\n{done.stdout}{done.stderr}")
        return done

    def command_lines(self) -> str:
        """Return the command lines of all processes that the engine sees, its containers' too."""
        return self.run("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")

    @staticmethod
    def environ() -> dict:
        return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def inside(self) -> list[str]:
        """Return the words that lead to where the engine runs."""
        return []

    def run(self, *argv) -> str:
        """Run a program beside the engine and return what it prints."""
        words = [*self.inside(), *map(str, argv)]
        done = subprocess.run(words, capture_output=True, text=True, env=self.environ())
        if done.returncode:
            raise Failed(f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout


class OwnEngine(Engine):
    """An engine in namespaces of its own, with the stand-ins as its images.

    The program that uses it has to be in a network namespace of its own: it shares that one.
    """

    def __init__(self, folder: pathlib.Path, first: int = 0):
        super().__init__(folder, first)
        self.root = HOME / "engine"
        self.data = HOME / "data"
        self._namespaces = Process(folder / "engine.log")
        self._daemon = Process(folder / "dockerd.log")
        self._lock = None

    def start(self):
        self.data.mkdir(exist_ok=True)
        # one engine at a time has this folder; others wait
        self._lock = (HOME / "in-use").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        shared = [self.data, self.folder, HOME / "images"]
        # unshare ignores SIGTERM, which would come if this program were killed
        killed = ["setpriv", "--pdeathsig=KILL"]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER]
        self._namespaces.start([*killed, *unshare, self.root, *shared])
        self._namespaces.wait_for(self._entered, "the engine's namespaces")
        self.start_daemon()
        # what a run that was killed has left
        self.remove_all()
        for name, (tag, instructions) in IMAGES.items():
            self._import(name, tag, instructions)
        return self

    def _entered(self) -> bool:
        children = pathlib.Path(
            f"/proc/{self._namespaces.pid}/task/{self._namespaces.pid}/children"
        )
        pids = children.read_text().split()
        if not pids:
            return False
        self.first = int(pids[0])
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{self.first}/comm").read_text() == "tini\n"
        return False

    def inside(self) -> list[str]:
        # --pid: what runs there ends with the first process
        return ["nsenter", f"--target={self.first}", "--mount", "--pid"]

    @staticmethod
    def environ() -> dict:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def start_daemon(self):
        """Start the daemon and wait until it answers."""
        init = "--init-path=/usr/bin/tini-static"  # Debian has it under its own name
        daemon = ["dockerd", f"--cgroup-parent={self._cgroup}", "--log-level=warn", init]
        self._daemon.start([*self.inside(), *daemon], env=self.environ())
        answers = ("version", "--format={{.Server.Version}}")
        self._daemon.wait_for(
            lambda: self.docker(*answers, check=False).returncode == 0, "the engine answers"
        )

    def stop_daemon(self):
        """Stop the daemon; by default its containers end with it."""
        # by its own number: nsenter passes no signal on
        self.run("sh", "-c", "kill $(cat /var/run/docker.pid)")
        wait_until(lambda: not self._daemon.running(), "the engine ends", 60)
        self._daemon.stop()

    @property
    def _cgroup(self) -> str:
        return f"bus_alt_connection-{os.getpid()}"

    def _import(self, name: str, tag: str, instructions: list[str]):
        source = HOME / "images" / f"{name}.tar"
        if not source.exists():
            return
        changes = [f"--change={line}" for line in instructions]
        self.docker("import", *changes, source, tag, timeout=600)
        source.unlink()

    def remove_all(self):
        """Remove every container, network and volume, and what was built upon the base images."""
        containers = self.docker("ps", "--all", "--quiet").stdout.split()
        if containers:
            self.docker("rm", "--force", "--volumes", *containers)
        self.docker("network", "prune", "--force")
        self.docker("volume", "prune", "--force", "--all")

    def stop(self):
        if self._daemon.running():
            self.remove_all()
            super().stop()
            self.docker("image", "prune", "--force")
            self.stop_daemon()
        self._namespaces.stop(signal.SIGKILL)  # unshare ignores SIGTERM; --kill-child ends the rest
        # what was killed is there for a moment
        wait_until(self._remove_cgroups, "the engine's control groups can be removed", 20)
        self._lock.close()

    def _remove_cgroups(self) -> bool:
        """Remove the control groups of what has ended; tell whether that was all of them."""
        left = False
        for folder, _folders, _files in os.walk("/sys/fs/cgroup", topdown=False):
            if self._cgroup in folder.split("/"):
                try:
                    os.rmdir(folder)
                except OSError:
                    left = True
        return not left


def engine(folder: pathlib.Path, first: int = 0) -> Engine:
    """Return the engine that ``./run compose`` has chosen, as ``Engine`` takes it."""
    kind = OwnEngine if os.environ["BUS_ALT_ENGINE"] == "own" else Engine
    return kind(folder, first)
