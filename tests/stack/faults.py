"""What can happen to PostgreSQL, to PgBouncer and to the network between them and Odoo.

Each fault is a context manager: it happens at the beginning, and the server is back at the
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
from .relay import Relay
from .users import Users

LISTENER = "listener"


class Site:
    """A deployment whose direct path can be broken.

    :param whole: a deployment that runs at the other end of the wire
    """

    def __init__(self, whole: Deployment, wire: Wire):
        self.whole = whole
        self.wire = wire
        self.postgres = whole.postgres
        self.relay = None
        self.standby = None
        self.database = ""
        self.back = None  # when the server was back, where a fault goes on after that
        self.listener_password = secrets.token_hex(16)
        self.postgres.create_role(LISTENER, self.listener_password, "")

    def settings(self, fault: Fault) -> dict:
        """Make what the fault needs and return the lines for odoo.conf."""
        host, ports = self.postgres.host, [self.postgres.port]
        if fault.relay:
            self.relay = Relay((self.postgres.host, self.postgres.port))
            host, ports = "127.0.0.1", [self.relay.port]
        if fault.standby:
            folder = self.whole.folder / "standby"
            self.standby = Postgres(folder, primary=self.postgres, wire=self.wire).start()
            ports.append(self.standby.port)
        return {
            "imdispatcher_db_host": ",".join([host] * len(ports)),
            "imdispatcher_db_port": ",".join(map(str, ports)),
            "imdispatcher_db_user": LISTENER,
            "imdispatcher_db_password": self.listener_password,
        }

    def close(self):
        """Stop what ``settings`` started."""
        if self.relay:
            self.relay.close()
        if self.standby:
            self.standby.stop()

    def kill_listeners(self):
        """End the backends of all listeners."""
        for pid, *_others in self.postgres.listeners():
            self.postgres.execute("SELECT pg_terminate_backend(%s)", [pid])

    def fail_over(self):
        """Promote the standby, which has all that was committed, and move PgBouncer to it."""

        def promoted():
            if self.postgres.process.running():
                (lsn,) = self.postgres.execute("SELECT pg_current_wal_lsn()::text")[0]
                caught_up = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                wait_until(lambda: self.standby.execute(caught_up, [lsn])[0][0], "caught up")
            self.standby.execute("SELECT pg_promote()")

        self.whole.pgbouncer.move_to(self.standby, promoted)
        self.postgres = self.standby


@contextlib.contextmanager
def killed_backend(site: Site):
    site.kill_listeners()
    yield


@contextlib.contextmanager
def _stopped(site: Site, signum: int):
    site.postgres.stop(signum)
    yield
    site.postgres.start()


def fast_stop(site: Site):
    return _stopped(site, signal.SIGINT)


def immediate_stop(site: Site):
    return _stopped(site, signal.SIGQUIT)


@contextlib.contextmanager
def refused(site: Site):
    site.relay.close()
    yield
    site.relay.open()


@contextlib.contextmanager
def reset(site: Site):
    site.relay.reset()
    yield


@contextlib.contextmanager
def forgotten(site: Site):
    site.relay.forget()
    yield


@contextlib.contextmanager
def black_hole(site: Site):
    site.wire.cut()
    yield
    site.wire.plug()


@contextlib.contextmanager
def deaf(site: Site):
    pids = [pid for pid, *_others in site.postgres.listeners()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def pgbouncer_restarted(site: Site):
    site.whole.pgbouncer.stop()
    yield
    site.whole.pgbouncer.start()


@contextlib.contextmanager
def restarted_under_load(site: Site):
    with Users(site.whole.pooled, site.database):
        time.sleep(1)
        site.postgres.stop(signal.SIGINT)
        yield
        site.postgres.start()
        site.back = time.monotonic()
        time.sleep(1)


@contextlib.contextmanager
def standby_promoted(site: Site):
    """The primary crashes."""
    site.postgres.stop(signal.SIGQUIT)
    yield
    site.fail_over()


@contextlib.contextmanager
def old_primary(site: Site):
    """The primary stays up, and so do its listeners' sessions, but nobody uses it any more."""
    site.fail_over()
    yield


@contextlib.contextmanager
def password_changed(site: Site):
    site.postgres.create_role(LISTENER, secrets.token_hex(16), "")
    site.kill_listeners()
    yield
    site.postgres.create_role(LISTENER, site.listener_password, "")


@dataclasses.dataclass
class Fault:
    """A row of the table of faults.

    :param seconds: how long it lasts
    :param cron: a cron job has to start so many seconds after the server is back
    :param silent: nothing tells Odoo, so time counts from its beginning
    :param at_start: it is there before Odoo starts
    :param relay: it needs a ``Relay`` before PostgreSQL
    :param standby: it needs a standby
    """

    name: str
    happens: Callable
    seconds: float
    silent: bool = False
    cron: float = 5
    at_start: bool = False
    relay: bool = False
    standby: bool = False


FAULTS = (
    Fault("killed backend", killed_backend, 0.5),
    Fault("fast stop", fast_stop, 3),
    Fault("immediate stop", immediate_stop, 3),
    Fault("down at start", refused, 5, at_start=True, relay=True),
    Fault("refused", refused, 10, relay=True),
    Fault("reset", reset, 0.5, relay=True),
    Fault("forgotten", forgotten, 30, silent=True, relay=True),
    Fault("black hole", black_hole, 30, silent=True),
    Fault("deaf", deaf, 30, silent=True),
    Fault("PgBouncer restarted", pgbouncer_restarted, 3),
    Fault("restarted under load", restarted_under_load, 3),
    Fault("standby promoted", standby_promoted, 3, standby=True),
    # a cron listener is proven once a minute, and Odoo looks once a minute by itself
    Fault("old primary", old_primary, 30, silent=True, cron=60, standby=True),
    Fault("password changed", password_changed, 5),
)
