"""Many websockets to one Odoo, in a process of their own."""

from __future__ import annotations

if __name__ == "__main__":
    import gevent.monkey

    gevent.monkey.patch_all()

import collections
import contextlib
import json
import sys
import time

import requests
import websocket

from tests.stack import series
from tests.stack.odoo import CHECKOUT, Odoo
from tests.stack.process import start_helper


class Crowd:
    """So many websockets, as a context.

    :param channel: that all are subscribed to; ``{}`` in it stands for the number of each
    """

    def __init__(self, odoo: Odoo, channel: str, number: int):
        with requests.Session() as session:
            session.get(f"{odoo.url}/web/login", timeout=60).raise_for_status()
            cookie = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
        version = series.websocket_version()
        url = f"ws://127.0.0.1:{odoo.bus_port}/websocket?version={version}"
        self.number = number
        self._popen = start_helper(
            [sys.executable, "-m", "benchmarks.crowd", url, odoo.url, cookie, channel, str(number)],
            cwd=CHECKOUT,
        )
        self._answer()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def _answer(self):
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError("the websockets' process ended")
        return json.loads(line)

    def arrivals(self, prefix: str, texts: int, timeout: float) -> dict[str, list[float]]:
        """Wait until every websocket has so many texts with this prefix.

        :param timeout: seconds, after which it returns what has arrived
        :return: for each text when it arrived, at each websocket (monotonic, s)
        """
        return self.frames(prefix, texts * self.number, timeout)

    def frames(self, prefix: str, frames: int, timeout: float) -> dict[str, list[float]]:
        """Wait until there were so many texts with this prefix at all websockets together.

        Takes and returns what ``arrivals`` does.
        """
        order = {"prefix": prefix, "frames": frames, "timeout": timeout}
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()
        return self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._popen.stdin.close()
        self._popen.kill()
        self._popen.wait()
        self._popen.stdout.close()


class _Websockets:
    """The websockets themselves, one greenlet each; ``received`` has when each text came."""

    def __init__(self, url: str, origin: str, cookie: str, channel: str):
        self._url = url
        self._headers = {"origin": origin, "cookie": cookie}
        self._channel = channel
        self.received = collections.defaultdict(list)

    def run(self, number: int, subscribed):
        last = 0
        while True:
            with contextlib.suppress(websocket.WebSocketException, OSError):
                sock = websocket.create_connection(self._url, timeout=60, **self._headers)
                subscription = {"channels": [self._channel.format(number)], "last": last}
                sock.send(json.dumps({"event_name": "subscribe", "data": subscription}))
                sock.settimeout(None)
                # the pong comes when Odoo has subscribed and looked for old messages
                sock.ping()
                opcode = None
                while opcode != websocket.ABNF.OPCODE_CLOSE:
                    opcode, frame = sock.recv_data(control_frame=True)
                    if opcode == websocket.ABNF.OPCODE_PONG:
                        subscribed.set()
                    elif opcode == websocket.ABNF.OPCODE_TEXT:
                        last = self._keep(json.loads(frame), last)
            time.sleep(0.2)

    def _keep(self, notifications: list, last: int) -> int:
        now = time.monotonic()
        for text in map(series.text_of, notifications):
            self.received[text or ""].append(now)
        return max([last, *(entry["id"] for entry in notifications)])

    def wait_for(self, prefix: str, frames: int, timeout: float) -> dict:
        deadline = time.monotonic() + timeout
        while True:
            found = {
                text: times for text, times in self.received.items() if text.startswith(prefix)
            }
            if sum(map(len, found.values())) >= frames or time.monotonic() > deadline:
                return found
            time.sleep(0.02)


def main(*connection, number: int):
    import gevent.event
    import gevent.fileobject

    websockets = _Websockets(*connection)
    for each in range(number):
        subscribed = gevent.event.Event()
        gevent.spawn(websockets.run, each, subscribed)
        subscribed.wait()
    print(json.dumps("ready"), flush=True)
    for line in gevent.fileobject.FileObjectThread(sys.stdin):
        print(json.dumps(websockets.wait_for(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:-1], number=int(sys.argv[-1]))
