# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Log lines whose handlers never hold the caller.

A handler may write into the database (Odoo's ``log_db``) or over the network. What waits for
PostgreSQL then waits for its own log line. Handlers that write to a stream or a file are called as
usual; for the others a thread writes the lines, in their order, and ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import deque
from typing import Iterator

from ..config.timing import STOP_TIMEOUT

MAX_WAITING = 1000  # lines; then the oldest are left out

QUICK = (logging.StreamHandler, logging.NullHandler)


class PatientLogger(logging.LoggerAdapter):
    """A logger for threads that must not wait."""

    def __init__(self, logger: logging.Logger):
        super().__init__(logger, {})

    def log(self, level, msg, *args, **kwargs):
        """Write a line as ``logging.Logger.log`` does, or let a thread do it."""
        if not self.isEnabledFor(level):
            return
        if not any(level >= handler.level for handler in _slow_handlers(self.logger)):
            self.logger.log(level, msg, *args, **kwargs)
            return
        exc_info = sys.exc_info() if kwargs.get("exc_info") else None
        text = str(msg) % args if args else str(msg)
        name, path = self.logger.name, "bus_alt_connection"
        _writer.add(self.logger, self.logger.makeRecord(name, level, path, 0, text, (), exc_info))


def _slow_handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    each: logging.Logger | None = logger
    while each:
        yield from (handler for handler in each.handlers if not isinstance(handler, QUICK))
        each = each.parent if each.propagate else None


class _Writer:
    """Calls the handlers of lines in a thread that lives while there are any."""

    def __init__(self):
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self._finish)

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards the next two
        self._waiting: deque = deque(maxlen=MAX_WAITING)  # (logger, record)
        self._thread: threading.Thread | None = None

    def add(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Write this line soon."""
        with self._lock:
            self._waiting.append((logger, record))
            if self._thread is None:
                name = "bus_alt_connection.log"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # none to be had: with the next line
                    return
                self._thread = thread

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                logger, record = self._waiting.popleft()
            try:
                logger.handle(record)
            except Exception:
                logging.lastResort.handle(record)

    def _finish(self) -> None:
        thread = self._thread
        if thread:
            thread.join(STOP_TIMEOUT)


_writer = _Writer()
