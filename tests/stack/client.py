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


class BusClient:
    """A public visitor's websocket that is subscribed to one channel.

    ``received`` lists (text, time of arrival: monotonic, s) of what ``series.send`` sent.
    """

    def __init__(self, odoo: Odoo, channel: str):
        self.received: list[tuple] = []
        session = requests.Session()
        session.get(f"{odoo.url}/web/login", timeout=60).raise_for_status()
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{odoo.websocket_port}/websocket?version={series.websocket_version()}",
            origin=odoo.url,
            cookie="; ".join(f"{name}={value}" for name, value in session.cookies.items()),
            timeout=60,
        )
        self._socket.send(
            json.dumps({"event_name": "subscribe", "data": {"channels": [channel], "last": 0}})
        )
        self._socket.settimeout(None)
        self._subscribed = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        # Odoo answers in order: the pong comes when it has subscribed and looked for old messages
        self._socket.ping()
        if not self._subscribed.wait(60):
            raise TimeoutError("Odoo's websocket did not answer")

    def _read(self):
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while True:
                opcode, frame = self._socket.recv_data(control_frame=True)
                now = time.monotonic()
                if opcode == websocket.ABNF.OPCODE_PONG:
                    self._subscribed.set()
                elif opcode == websocket.ABNF.OPCODE_TEXT:
                    texts = map(series.text_of, json.loads(frame))
                    self.received.extend((text, now) for text in texts if text is not None)
                elif opcode == websocket.ABNF.OPCODE_CLOSE:
                    break

    def texts(self) -> list[str]:
        return [text for text, _arrival in self.received]

    def wait_for(self, text: str, timeout: float = 30.0):
        wait_until(lambda: text in self.texts(), f"{text!r} arrives", timeout)

    def close(self):
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._socket.sock.shutdown(socket.SHUT_RDWR)  # wakes the reader
        self._thread.join(5)
        self._socket.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()
