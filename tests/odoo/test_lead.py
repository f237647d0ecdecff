"""The processes of a prefork server share one listener, also when the one that leads is killed."""

import contextlib
import os
import re
import signal
import threading
import time

import psutil
import pytest
import requests

from ..stack import series
from ..stack.client import BusClient
from ..stack.deployment import running_deployment
from ..stack.process import wait_until
from .conftest import running

pytestmark = pytest.mark.skipif(not series.CRON_LISTENS, reason="one process listens before 15.0")

CLIENTS = 20


@pytest.fixture(scope="module")
def server():
    """A prefork server with two cron workers, and nothing else that listens."""
    with running_deployment() as whole:
        options = {**whole.direct_settings, "max_cron_threads": 2, "imdispatcher_metrics": True}
        with running(whole, workers=2, options=options) as site:
            wait_until(lambda: ready(site), "ready")
            yield site


def ready(site) -> bool:
    """Tell whether the gevent process is there, and hears both channels."""
    with contextlib.suppress(requests.ConnectionError):
        answer = site.odoo.ready()
        return answer.ok and len(answer.json()["listeners"]) == 2
    return False


def leader(site) -> psutil.Process:
    """The process that has the only direct connection."""

    def found() -> psutil.Process | None:
        # a process, or the backend of one, that was killed may be there for a moment
        with contextlib.suppress(psutil.NoSuchProcess):
            pids = {process.pid for process in site.odoo.tree()}
            rows = site.postgres.listeners()
            ours = pids & {int(name.split("-")[1]) for _pid, name, _port in rows}
            return psutil.Process(*ours) if len(rows) == len(ours) == 1 else None
        return None

    return wait_until(found, "one listens")


class Stream(threading.Thread):
    """Sends a message every 20 ms."""

    def __init__(self, site, channel: str):
        super().__init__()
        self._site, self._channel, self._end = site, channel, threading.Event()
        self.sent: dict[str, float] = {}

    def run(self):
        while not self._end.wait(0.02):
            text = f"message {len(self.sent)}"
            self.sent[text] = self._site.sender.send(self._channel, text)["committed"]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc_info):
        self._end.set()
        self.join()


def test_the_leader_is_killed(server):
    channel = server.channel()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(BusClient(server.odoo, channel)) for _ in range(CLIENTS)]
        with Stream(server, channel) as stream:
            for _time in range(5):
                wait_until(lambda: ready(server), "ready")
                count = len(stream.sent)
                wait_until(lambda count=count: len(stream.sent) > count + 20, "some messages")
                text = f"message {count}"
                for client in clients:
                    client.wait_for(text)
                gone = leader(server)
                is_gevent = "gevent" in gone.cmdline()
                killed = time.monotonic()
                gone.kill()
                wait_until(lambda gone=gone: leader(server) != gone, "another one leads", 10)
                if not is_gevent:  # its websockets end with it

                    def go_on(killed=killed):
                        return all(one.received[-1][1] > killed + 0.1 for one in clients)

                    wait_until(go_on, "all websockets hear", 2)
                print(f"{'gevent' if is_gevent else 'cron'}: {time.monotonic() - killed:.2f} s")
        for client in clients:
            wait_until(lambda client=client: stream.sent.keys() <= set(client.texts()), "all", 20)
            assert len(client.received) == len(stream.sent), "none twice"
    assert len(server.postgres.listeners()) == 1


def test_a_job_after_the_leader_was_killed(server):
    assert server.starts(20)
    for _time in range(2):
        leader(server).kill()
        assert server.starts(2)


def test_a_follower_has_no_thread_and_no_connection(server):
    wait_until(lambda: ready(server), "ready")
    first = leader(server)

    def cron_workers():
        pids = map(int, re.findall(r"WorkerCron \((\d+)\) alive", server.odoo.log()))
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    wait_until(lambda: len(cron_workers()) == 2, "two cron workers")
    for worker in cron_workers():
        if worker != first:
            assert worker.num_threads() == 2, "as Odoo has them"


def test_one_line_for_the_server(server):
    log = server.odoo.log()
    changes = log.count("this process listens for the others from now on")
    lines = len(re.findall(": listening at ", log))
    # cron and bus begin one after the other, as in a threaded server
    assert changes <= lines <= 2 + 2 * changes


def test_metrics_show_who_leads(server):
    url = f"http://127.0.0.1:{server.odoo.gevent_port}/bus_alt_connection/metrics"
    wait_until(lambda: ready(server), "ready")

    def scrape() -> dict:
        text = requests.get(url, timeout=10).text
        return {name: float(value) for name, value in re.findall(r"^(\w+{.*}) (\S+)$", text, re.M)}

    found = scrape()
    for channel in ("cron_trigger", "imbus"):
        assert found[f'odoo_listener_up{{channel="{channel}"}}'] == 1
    (leads,) = (value for name, value in found.items() if name.startswith("odoo_listener_leads{"))
    assert leads == ("gevent" in leader(server).cmdline())
    wait_until(
        lambda: 2 in [v for n, v in scrape().items() if n.startswith("odoo_listener_followers{")],
        "two follow",
    )


def test_a_leader_that_is_recycled(server):
    channel = server.channel()
    with BusClient(server.odoo, channel) as client:
        with Stream(server, channel) as stream:
            for _time in range(3):
                wait_until(lambda: ready(server), "ready")
                old = leader(server)
                os.kill(old.pid, signal.SIGINT)
                wait_until(lambda old=old: leader(server) != old, "another one leads", 10)
        wait_until(lambda: stream.sent.keys() <= set(client.texts()), "all", 20)
    assert len(client.received) == len(stream.sent)
