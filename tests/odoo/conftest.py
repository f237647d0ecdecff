"""Real Odoo servers, shared by all tests that leave them as they were."""

from __future__ import annotations

import concurrent.futures
import contextlib
import secrets

import pytest

from ..stack import manager, series
from ..stack.client import BusClient
from ..stack.deployment import Deployment, running_deployment
from ..stack.odoo import Odoo, Sender
from ..stack.process import wait_until

# servers whose settings differ share no listener
OWN_LISTENER = {"imdispatcher_db_connect_timeout": 9}

BOTH = pytest.mark.parametrize("mode", ["threaded", "prefork"])


@pytest.fixture(scope="session")
def deployment():
    """PostgreSQL and PgBouncer, shared by all tests that do not break them."""
    with running_deployment() as whole:
        yield whole


class Site:
    """An Odoo server, what it runs on, and a second Odoo process that commits."""

    def __init__(self, whole: Deployment, odoo: Odoo):
        self.whole, self.odoo, self.postgres = whole, odoo, whole.postgres
        self.sender = Sender(odoo)

    def channel(self) -> str:
        """Return the name of a channel that no other test has."""
        return f"channel-{secrets.token_hex(4)}"

    def deliver(self, number: int = 100, timeout: float = 30.0) -> int:
        """Send notifications one by one and return how many arrive."""
        channel = self.channel()
        with BusClient(self.odoo, channel) as client:
            for i in range(number):
                self.sender.send(channel, f"message {i}")
            with contextlib.suppress(TimeoutError):
                client.wait_for(f"message {number - 1}", timeout)
            return len(client.received)

    def hurry(self, timeout: float) -> bool:
        """Send from three processes at once; tell whether what is sent afterwards arrives."""
        channel = self.channel()
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(BusClient(self.odoo, channel))
            senders = [stack.enter_context(contextlib.closing(Sender(self.odoo))) for _ in range(3)]
            with concurrent.futures.ThreadPoolExecutor(len(senders)) as threads:
                for sender in senders:
                    threads.submit(
                        lambda sender=sender: [sender.send(channel, "") for _ in range(100)]
                    )
            self.sender.send(channel, "afterwards")
            with contextlib.suppress(TimeoutError):
                client.wait_for("afterwards", timeout)
            return "afterwards" in client.texts()

    def starts(self, timeout: float, job: str = "") -> bool:
        """Trigger a cron job and tell whether it starts within so many seconds."""
        job = job or f"job {secrets.token_hex(4)}"
        before = series.job_starts(self.odoo.log(), job)
        self.sender.trigger(job)
        try:
            return wait_until(
                lambda: series.job_starts(self.odoo.log(), job) > before, job, timeout
            )
        except TimeoutError:
            return False

    def says(self, text: str, timeout: float = 30.0):
        """Wait until the log has this text."""
        wait_until(lambda: text in self.odoo.log(), text, timeout)

    def close(self):
        self.sender.close()


@contextlib.contextmanager
def running(whole: Deployment, db=None, **options):
    """An Odoo server as a ``Site``."""
    with whole.odoo(db, **options) as odoo:
        site = Site(whole, odoo)
        try:
            yield site
        finally:
            site.close()


@pytest.fixture(scope="session")
def threaded(deployment):
    """A threaded server with the addon, set in odoo.conf, with two cron threads."""
    own = {**OWN_LISTENER, "max_cron_threads": 2}
    options = {**deployment.direct_settings, **manager.OPTIONS, **own}
    with running(deployment, options=options) as site:
        yield site


@pytest.fixture(scope="session")
def prefork(deployment):
    """A prefork server with the addon, set in the environment, with two cron workers."""
    set_there = {**deployment.direct_settings, "imdispatcher_db_connect_timeout": 8}
    environ = {key.upper(): str(value) for key, value in set_there.items()}
    options = {"max_cron_threads": 2}
    with running(deployment, workers=2, environ=environ, options=options) as site:
        yield site


@pytest.fixture
def site(request, mode):
    """The shared server of this mode."""
    return request.getfixturevalue(mode)


@pytest.fixture
def stock(deployment, mode):
    """A server of this mode without the addon, behind PgBouncer."""
    workers = {"threaded": 0, "prefork": 2}[mode]
    with running(deployment, workers=workers, addon=False, options={"max_cron_threads": 1}) as site:
        yield site
