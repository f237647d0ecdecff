"""A network of the suite's own: a namespace for the program, one more for PostgreSQL.

Packets between the two can be dropped, as by a cut cable; nothing else on the machine is
touched.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from .postgres import SERVERS, THERE, server_environ
from .process import Process, wait_until

INSIDE = "BUS_ALT_OWN_NETWORK"

HERE = "10.73.0.1"
# variables that sudo would take away
KEPT = ("BUS_ALT_", "PYTHON", "LD_", "PATH", "HOME")

NOBODY = "02:00:00:00:00:01"


def _ip_program() -> pathlib.Path:
    places = ("sbin", "usr/sbin", "bin", "usr/bin")
    found = [SERVERS / place / "ip" for place in places]
    return next(path for path in found if path.is_file() and not path.is_symlink())


def ip(*args):
    subprocess.run([_ip_program(), *map(str, args)], env=server_environ(), check=True)


def enter_own_network(module: str):
    """Run this module again in a network namespace of its own, unless it is in one.

    Root may make one; others make a user namespace for it, or ask sudo where that is
    forbidden.
    """
    if os.environ.get(INSIDE):
        ip("link", "set", "lo", "up")
        return
    os.environ[INSIDE] = "yes"
    unshare = ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"]
    if os.getuid() == 0:
        unshare = ["unshare", "--net"]
    elif subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
        caps = "+net_admin,+sys_admin"
        unshare = [
            *("sudo", "unshare", "--net", "setpriv"),
            *(f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups"),
            *(f"--inh-caps={caps}", f"--ambient-caps={caps}", "env"),
            *(f"{name}={value}" for name, value in os.environ.items() if name.startswith(KEPT)),
        ]
    os.execvp(unshare[0], [*unshare, sys.executable, "-m", module, *sys.argv[1:]])


class Wire:
    """A cable from this namespace to another one, in which PostgreSQL runs."""

    def __init__(self, log: pathlib.Path):
        # the namespace lives as long as a process in it
        self._holder = Process(log)
        self._holder.start(["unshare", "--net", "sleep", "infinity"])
        here = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != here, "namespace")
        ip("link", "add", "here", "type", "veth", "peer", "name", "there")
        ip("link", "set", "there", "netns", self._holder.pid)
        ip("addr", "add", f"{HERE}/24", "dev", "here")
        ip("link", "set", "here", "up")
        self._there("addr", "add", f"{THERE}/24", "dev", "there")
        self._there("link", "set", "there", "up")
        self._there("link", "set", "lo", "up")
        self._addresses = {side: self._address(side) for side in ("here", "there")}
        self.plug()

    def enter(self) -> list:
        """Words that run a command there, as the user that ``unprivileged`` names."""
        words = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]
        if os.getuid() == 0:
            words += ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            words += ["--pdeathsig=TERM"]
        return words

    def cut(self):
        """Drop every packet, both ways and silently: send them to an address that nobody has."""
        ip("neigh", "replace", THERE, "lladdr", NOBODY, "dev", "here", "nud", "permanent")
        self._there("neigh", "replace", HERE, "lladdr", NOBODY, "dev", "there", "nud", "permanent")

    def plug(self):
        """Undo ``cut``."""
        near, far = self._addresses["here"], self._addresses["there"]
        ip("neigh", "replace", THERE, "lladdr", far, "dev", "here", "nud", "permanent")
        self._there("neigh", "replace", HERE, "lladdr", near, "dev", "there", "nud", "permanent")

    def remove(self):
        ip("link", "del", "here")
        self._holder.stop()

    def _there(self, *args):
        subprocess.run(
            ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", _ip_program(), *map(str, args)],
            env=server_environ(),
            check=True,
        )

    def _address(self, side: str) -> str:
        words = [_ip_program(), "-o", "link", "show", side]
        if side == "there":
            words = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *words]
        done = subprocess.run(
            words, env=server_environ(), check=True, capture_output=True, text=True
        )
        return done.stdout.split("link/ether ")[1].split()[0]
