"""A client of Odoo's bus, as a browser is one."""

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
    """A public visitor who is subscribed to one channel.

    ``received`` lists (text, time of arrival: monotonic, s) of what ``series.send`` sent.
    """

    def __init__(self, odoo: Odoo, channel: str):
        self.received: list[tuple] = []
        self.session = requests.Session()
        self.session.get(f"{odoo.url}/web/login", timeout=60).raise_for_status()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._subscribe(odoo, channel)

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
    """16.0 on."""

    def _subscribe(self, odoo: Odoo, channel: str):
        cookies = self.session.cookies.items()
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{odoo.bus_port}/websocket?version={series.websocket_version()}",
            origin=odoo.url,
            cookie="; ".join(f"{name}={value}" for name, value in cookies),
            timeout=60,
        )
        self._socket.send(
            json.dumps({"event_name": "subscribe", "data": {"channels": [channel], "last": 0}})
        )
        self._socket.settimeout(None)
        self._subscribed = threading.Event()
        self._thread.start()
        # Odoo answers in order: the pong comes when it has subscribed and looked for old messages
        self._socket.ping()
        if not self._subscribed.wait(60):
            raise TimeoutError("Odoo's websocket did not answer")

    def _read(self):
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while True:
                opcode, frame = self._socket.recv_data(control_frame=True)
                if opcode == websocket.ABNF.OPCODE_PONG:
                    self._subscribed.set()
                elif opcode == websocket.ABNF.OPCODE_TEXT:
                    self._keep(json.loads(frame))
                elif opcode == websocket.ABNF.OPCODE_CLOSE:
                    break

    def close(self):
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._socket.sock.shutdown(socket.SHUT_RDWR)  # wakes the reader
        self._thread.join(5)
        self._socket.shutdown()


class LongpollingClient(_Client):
    """14.0 and 15.0: asks again as soon as it has an answer."""

    def _subscribe(self, odoo: Odoo, channel: str):
        self._url = f"http://127.0.0.1:{odoo.bus_port}/longpolling/poll"
        self._channel = channel
        self._open = True
        self._thread.start()
        # the dispatcher starts when the first request waits; a later one gives no sign
        started = "Bus.loop listen imbus"
        wait_until(lambda: started in odoo.log(), started)
        time.sleep(0.5)

    def _read(self):
        last = 0
        while self._open:
            call = {"channels": [self._channel], "last": last, "options": {}}
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
