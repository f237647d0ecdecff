"""A client of Odoo's bus that does what a browser does."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import requests
import websocket

from . import series
from .odoo import Odoo
from .process import wait_until


class _Client:
    """An unauthenticated client that is subscribed to one channel, or to more.

    ``received`` lists (text, time of arrival: monotonic, s) of what ``series.send`` sent.
    """

    def __init__(self, odoo: Odoo, channel: str, channels: list[str] | None = None):
        self._channels = channels or [channel]
        self.received: list[tuple] = []
        self.session = requests.Session()
        self.session.get(f"{odoo.url}/web/login", timeout=60).raise_for_status()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._subscribe(odoo)

    def _keep(self, notifications: list):
        now = time.monotonic()
        texts = map(series.text_of, notifications)
        self.received.extend((text, now) for text in texts if text is not None)

    def texts(self) -> list[str]:
        return [text for text, _arrival in self.received]

    def wait_for(self, text: str, timeout: float = 30.0):
        wait_until(lambda: text in self.texts(), f"{text!r} arrives", timeout)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


class WebsocketClient(_Client):
    """16.0 on; connects again when Odoo closes the websocket, as a browser does."""

    def _subscribe(self, odoo: Odoo):
        self._url = f"ws://127.0.0.1:{odoo.bus_port}/websocket?version={series.websocket_version()}"
        self._origin = odoo.url
        self._last = 0
        self._open = True
        self._subscribed = threading.Event()
        self._connect()
        self._thread.start()
        if not self._subscribed.wait(60):
            raise TimeoutError("Odoo's websocket did not answer")

    def reconnect(self):
        """Subscribe anew, to what follows what was received, as a browser does after a while."""
        self._subscribed.clear()
        self._socket.sock.shutdown(socket.SHUT_RDWR)
        if not self._subscribed.wait(60):
            raise TimeoutError("Odoo's websocket did not answer")

    def _connect(self):
        cookies = self.session.cookies.items()
        self._socket = websocket.create_connection(
            self._url,
            origin=self._origin,
            cookie="; ".join(f"{name}={value}" for name, value in cookies),
            timeout=60,
        )
        subscription = {"channels": self._channels, "last": self._last}
        self._socket.send(json.dumps({"event_name": "subscribe", "data": subscription}))
        self._socket.settimeout(None)
        # Odoo answers in order: the pong follows the subscription and its query for old messages
        self._socket.ping()

    def _read(self):
        while self._open:
            with contextlib.suppress(websocket.WebSocketException, OSError):
                self._read_until_closed()
            if self._open:
                time.sleep(0.2)
                with contextlib.suppress(websocket.WebSocketException, OSError):
                    self._connect()

    def _read_until_closed(self):
        while True:
            opcode, frame = self._socket.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_PONG:
                self._subscribed.set()
            elif opcode == websocket.ABNF.OPCODE_TEXT:
                notifications = json.loads(frame)
                self._last = max([self._last, *(entry["id"] for entry in notifications)])
                self._keep(notifications)
            elif opcode == websocket.ABNF.OPCODE_CLOSE:
                break

    def close(self):
        self._open = False
        sock = self._socket.sock
        if sock:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the reader
        self._thread.join(5)
        self._socket.shutdown()


class LongpollingClient(_Client):
    """14.0 and 15.0: asks again as soon as it has an answer."""

    def reconnect(self):
        """Do nothing: each of its requests says what was received."""

    def _subscribe(self, odoo: Odoo):
        self._url = f"http://127.0.0.1:{odoo.bus_port}/longpolling/poll"
        self._open = True
        self._thread.start()
        # the dispatcher starts with the first request; Odoo logs nothing for the later ones
        started = "Bus.loop listen imbus"
        wait_until(lambda: started in odoo.log(), started)
        time.sleep(0.5)

    def _read(self):
        last = 0
        while self._open:
            call = {"channels": self._channels, "last": last, "options": {}}
            try:
                answer = self.session.post(
                    self._url, json={"jsonrpc": "2.0", "method": "call", "params": call}, timeout=90
                )
                notifications = answer.json().get("result", [])
            except (requests.RequestException, ValueError):
                time.sleep(0.1)
                continue
            if self._open:
                self._keep(notifications)
                last = max([last, *(notification["id"] for notification in notifications)])

    def close(self):
        # the request that waits now ends with the server or after Odoo's 50 s
        self._open = False
        self.session.close()


BusClient = LongpollingClient if series.LONGPOLLING else WebsocketClient
