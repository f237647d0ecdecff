"""Start and stop server processes that never outlive the program that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psutil

CACHE = pathlib.Path(os.environ["BUS_ALT_CACHE"])
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_given_ports: set[int] = set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now and was not returned before."""
    while True:
        with contextlib.closing(socket.socket()) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def wait_until(condition, what: str, timeout: float = 30.0, interval: float = 0.05):
    """Return the first true value of ``condition()``; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(interval)


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether something accepts TCP connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def end_on_signals():
    """Handle SIGTERM and SIGHUP as Ctrl-C: the program ends with its clean-up."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)


@contextlib.contextmanager
def started(servers):
    """Start these servers and yield them; stop them at the end, also if the start fails."""
    try:
        yield servers.start()
    finally:
        servers.stop()


@contextlib.contextmanager
def run_folder():
    """A folder in the cache for the files of one run; removed afterwards.

    Its name begins with this process's id: the next run removes what a killed run has left.
    """
    parent = CACHE / "run"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if not psutil.pid_exists(int(left.name.split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unprivileged() -> dict:
    """Arguments for ``subprocess``: PostgreSQL and PgBouncer refuse to run as root."""
    if os.getuid():
        return {}
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def give_to_servers(path: pathlib.Path):
    """Let the user that ``unprivileged`` names own this path."""
    if not os.getuid():
        shutil.chown(path, "nobody", "nogroup")


def die_with_parent():
    """For ``preexec_fn``: end the child if this program is killed."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start_helper(argv: list, **options) -> subprocess.Popen:
    """Start a program that is asked through its standard input, and answers on its output."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
        **options,
    )


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU of a server and its processes, also of those that ended."""
    process = psutil.Process(pid)
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return total


class Process:
    """A server process in a session of its own, with its output in a file."""

    def __init__(self, log: pathlib.Path, stop_signal: int = signal.SIGTERM):
        self.log = log
        self.stop_signal = stop_signal
        self.popen = None

    def start(self, argv, **options):
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [str(arg) for arg in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
                **options,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def stop(self, signum: int | None = None, timeout: float = 20.0):
        """Ask the process to end, then end its whole session."""
        if self.popen is None:
            return
        if self.running():
            self.popen.send_signal(signum or self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self.popen = None

    def wait_for(self, condition, what: str, timeout: float = 60.0):
        """As ``wait_until``, but fail at once, with the log's end, if the process ends."""

        def check():
            value = condition()
            if not value and not self.running():
                raise RuntimeError(f"{what}: process ended\n{self.tail()}")
            return value

        try:
            return wait_until(check, what, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.text().splitlines()[-lines:])
