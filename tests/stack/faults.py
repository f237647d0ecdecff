"""Faults of PostgreSQL, of PgBouncer and of the network between them and Odoo.

Each fault is a context manager: it begins with the context, and the server is back at its
end. ``FAULTS`` names them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import time
from collections.abc import Callable

from .deployment import Deployment
from .network import Wire
from .postgres import Postgres
from .process import wait_until
from .tcp_proxy import TcpProxy
from .users import Users

LISTENER = "listener"


class FaultTarget:
    """A deployment whose direct connection can be broken.

    :param deployment: a deployment that runs at the other end of the wire
    :param wire: to it; None: name no host, the addon asks the pooled connection
    """

    def __init__(self, deployment: Deployment, wire: Wire | None):
        self.deployment = deployment
        self.wire = wire
        self.postgres = deployment.postgres
        self.proxy = None
        self.standby = None
        self.database = ""
        self.back = (
            None  # when the server was back (monotonic, s), for a fault that ends later than that
        )
        self.listener_password = secrets.token_hex(16)
        self.postgres.create_role(LISTENER, self.listener_password, "")

    def settings(self, fault: Fault) -> dict:
        """Make what the fault needs and return the lines for odoo.conf."""
        host, ports = self.postgres.host, [self.postgres.port]
        if fault.proxy:
            self.proxy = TcpProxy((self.postgres.host, self.postgres.port))
            host, ports = "127.0.0.1", [self.proxy.port]
        if fault.standby:
            folder = self.deployment.folder / "standby"
            self.standby = Postgres(folder, primary=self.postgres, wire=self.wire).start()
            ports.append(self.standby.port)
        role = {
            "imdispatcher_db_user": LISTENER,
            "imdispatcher_db_password": self.listener_password,
        }
        if not self.wire:
            return {"imdispatcher_db_host": "auto", **role}
        return {
            "imdispatcher_db_host": ",".join([host] * len(ports)),
            "imdispatcher_db_port": ",".join(map(str, ports)),
            **role,
        }

    def close(self):
        """Stop what ``settings`` started."""
        if self.proxy:
            self.proxy.close()
        if self.standby:
            self.standby.stop()

    def fail_over(self):
        """Promote the standby, which has all that was committed, and move PgBouncer to it."""

        def promoted():
            if self.postgres.process.running():
                (lsn,) = self.postgres.execute("SELECT pg_current_wal_lsn()::text")[0]
                caught_up = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                wait_until(lambda: self.standby.execute(caught_up, [lsn])[0][0], "caught up")
            self.standby.execute("SELECT pg_promote()")

        self.deployment.pgbouncer.move_to(self.standby, promoted)
        self.postgres = self.standby


@contextlib.contextmanager
def _between(begin: Callable[[], None], end: Callable[[], None] = lambda: None):
    begin()
    yield
    end()


def killed_backend(target: FaultTarget):
    return _between(target.postgres.kill_listeners)


def fast_stop(target: FaultTarget):
    postgres = target.postgres
    return _between(lambda: postgres.stop(signal.SIGINT), postgres.start)


def immediate_stop(target: FaultTarget):
    postgres = target.postgres
    return _between(lambda: postgres.stop(signal.SIGQUIT), postgres.start)


def refused(target: FaultTarget):
    return _between(target.proxy.close, target.proxy.open)


def reset(target: FaultTarget):
    return _between(target.proxy.reset)


def forgotten(target: FaultTarget):
    return _between(target.proxy.forget)


def black_hole(target: FaultTarget):
    return _between(target.wire.cut, target.wire.plug)


@contextlib.contextmanager
def deaf(target: FaultTarget):
    pids = [pid for pid, *_others in target.postgres.listeners()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def pgbouncer_restarted(target: FaultTarget):
    pgbouncer = target.deployment.pgbouncer
    return _between(pgbouncer.stop, pgbouncer.start)


@contextlib.contextmanager
def restarted_under_load(target: FaultTarget):
    with Users(target.deployment.pooled, target.database):
        time.sleep(1)
        target.postgres.stop(signal.SIGINT)
        yield
        target.postgres.start()
        target.back = time.monotonic()
        time.sleep(1)


@contextlib.contextmanager
def standby_promoted(target: FaultTarget):
    """The primary crashes."""
    target.postgres.stop(signal.SIGQUIT)
    yield
    target.fail_over()


def old_primary(target: FaultTarget):
    """The old primary stays up with its listeners' sessions, but PgBouncer uses the new one."""
    return _between(target.fail_over)


@contextlib.contextmanager
def password_changed(target: FaultTarget):
    target.postgres.create_role(LISTENER, secrets.token_hex(16), "")
    target.postgres.kill_listeners()
    yield
    target.postgres.create_role(LISTENER, target.listener_password, "")


@dataclasses.dataclass
class Fault:
    """A row of the table of faults.

    :param seconds: how long it lasts
    :param cron: a cron job has to start so many seconds after the server is back
    :param silent: no error reaches Odoo, so time counts from its beginning
    :param at_start: it is there before Odoo starts
    :param proxy: it needs a ``TcpProxy`` in front of PostgreSQL
    :param standby: it needs a standby
    :param wire: it needs a ``Wire`` between Odoo and PostgreSQL
    """

    name: str
    happens: Callable
    seconds: float
    silent: bool = False
    cron: float = 5
    at_start: bool = False
    proxy: bool = False
    standby: bool = False
    wire: bool = False


FAULTS = (
    Fault("killed backend", killed_backend, 0.5),
    Fault("fast stop", fast_stop, 3),
    Fault("immediate stop", immediate_stop, 3),
    Fault("down at start", refused, 5, at_start=True, proxy=True),
    Fault("refused", refused, 10, proxy=True),
    Fault("reset", reset, 0.5, proxy=True),
    Fault("forgotten", forgotten, 30, silent=True, proxy=True),
    Fault("black hole", black_hole, 30, silent=True, wire=True),
    Fault("deaf", deaf, 30, silent=True),
    Fault("PgBouncer restarted", pgbouncer_restarted, 3),
    Fault("restarted under load", restarted_under_load, 3),
    Fault("standby promoted", standby_promoted, 3, standby=True),
    # a cron listener is proven once a minute, and Odoo looks once a minute by itself
    Fault("old primary", old_primary, 30, silent=True, cron=60, standby=True),
    Fault("password changed", password_changed, 5),
)
