"""A private network for the suite: a namespace for the program, more for servers.

Packets between two of them can be dropped, as by a cut cable; nothing else on the machine is
touched.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable

from .postgres import SERVERS, THERE, server_environ
from .process import Process, wait_until

INSIDE = "BUS_ALT_OWN_NETWORK"

HERE = "10.73.0.1"
# variables that sudo would take away
KEPT = ("BUS_ALT_", "PYTHON", "LD_", "PATH", "HOME")

UNUSED = "02:00:00:00:00:01"


def _ip_program() -> pathlib.Path:
    folders = ("sbin", "usr/sbin", "bin", "usr/bin")
    paths = [SERVERS / folder / "ip" for folder in folders]
    return next(path for path in paths if path.is_file() and not path.is_symlink())


def ip(*args, inside: tuple = ()) -> str:
    """Run ``ip`` and return what it prints.

    :param inside: words that lead into another namespace
    """
    words = [*inside, _ip_program(), *map(str, args)]
    environ = server_environ()
    return subprocess.run(words, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout


def lead_to(address: str, link_address: str, device: str, inside: tuple = ()):
    """Send packets for ``address`` to this link address, without asking with ARP."""
    entry = ("lladdr", link_address, "dev", device, "nud", "permanent")
    ip("neigh", "replace", address, *entry, inside=inside)


def enter_own_network(module: str):
    """Run this module again in a network namespace of its own, unless it is in one.

    Root may make one; other users make a user namespace for it, or use sudo where that is
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


class Namespace:
    """A network namespace beside this one, as of another machine."""

    def __init__(self, log: pathlib.Path):
        # the namespace lives as long as a process in it
        self._holder = Process(log)
        self._holder.start(["unshare", "--net", "sleep", "infinity"])
        self.pid = self._holder.pid
        here = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != here, "namespace")
        self.words = ("nsenter", f"--net=/proc/{self.pid}/ns/net")
        ip("link", "set", "lo", "up", inside=self.words)

    def enter(self, *options: str) -> list:
        """Words that run a command there, as the user that ``unprivileged`` names.

        :param options: more for ``setpriv``, where the program runs as root
        """
        words = list(self.words)
        if os.getuid() == 0:
            words += ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            words += ["--pdeathsig=TERM", *options]
        return words

    def remove(self):
        self._holder.stop()


class Wire:
    """A cable from this namespace to another one, in which PostgreSQL runs."""

    def __init__(self, log: pathlib.Path):
        self._far = Namespace(log)
        self.enter = self._far.enter
        words = self._far.words
        ip("link", "add", "here", "type", "veth", "peer", "name", "there")
        ip("link", "set", "there", "netns", self._far.pid)
        ip("addr", "add", f"{HERE}/24", "dev", "here")
        ip("link", "set", "here", "up")
        ip("addr", "add", f"{THERE}/24", "dev", "there", inside=words)
        ip("link", "set", "there", "up", inside=words)
        shown = ip("-o", "link", "show", "here"), ip("-o", "link", "show", "there", inside=words)
        self._addresses = [text.split("link/ether ")[1].split()[0] for text in shown]
        self.plug()

    def cut(self):
        """Drop every packet, both ways and silently: send them to an unused link address."""
        self._lead(UNUSED, UNUSED)

    def plug(self):
        """Undo ``cut``."""
        self._lead(*self._addresses)

    def _lead(self, near: str, far: str):
        lead_to(THERE, far, "here")
        lead_to(HERE, near, "there", inside=self._far.words)

    def remove(self):
        ip("link", "del", "here")
        self._far.remove()


class Lan:
    """A switch with machines at it: this namespace, and so many others.

    :param folder: for logs
    :param number: of other machines
    """

    def __init__(self, folder: pathlib.Path, number: int):
        self.addresses = [HERE, *(f"10.73.0.{10 + i}" for i in range(1, number + 1))]
        self.machines = [Namespace(folder / f"machine{i}.log") for i in range(1, number + 1)]
        self._words = [(), *(machine.words for machine in self.machines)]
        ip("link", "add", "lan0", "type", "bridge")
        ip("link", "set", "lan0", "address", self._link_address(0), "up")
        ip("addr", "add", f"{HERE}/24", "dev", "lan0")
        for i, machine in enumerate(self.machines, start=1):
            inside = machine.words
            ip("link", "add", f"port{i}", "type", "veth", "peer", "name", f"lan{i}")
            ip("link", "set", f"port{i}", "master", "lan0", "up")
            ip("link", "set", f"lan{i}", "netns", machine.pid)
            ip("link", "set", f"lan{i}", "address", self._link_address(i), "up", inside=inside)
            ip("addr", "add", f"{self.addresses[i]}/24", "dev", f"lan{i}", inside=inside)
        self.plug()

    @staticmethod
    def _link_address(i: int) -> str:
        return f"02:00:00:00:01:{i:02x}"

    def cut(self, machine: int, others: Iterable[int]):
        """Drop every packet between a machine and others, both ways and silently.

        :param machine: counted from 1
        :param others: likewise; 0 is this namespace
        """
        for other in others:
            self._lead(machine, other, UNUSED)
            self._lead(other, machine, UNUSED)

    def plug(self):
        """Undo ``cut``."""
        for machine, other in itertools.permutations(range(len(self.addresses)), 2):
            self._lead(machine, other, self._link_address(other))

    def _lead(self, machine: int, other: int, link_address: str):
        lead_to(self.addresses[other], link_address, f"lan{machine}", inside=self._words[machine])

    def remove(self):
        ip("link", "del", "lan0")
        for machine in self.machines:
            machine.remove()
