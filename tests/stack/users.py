"""Other users of the database, who query through the pooler while something else happens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import psycopg2

from .odoo import Path


class AtOnce:
    """A context in which each of these runs in a thread, until its end sets ``_stop``."""

    def __init__(self, *works: Callable[[], None]):
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in works]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        for thread in self._threads:
            thread.join(70)


class Users(AtOnce):
    """A context in which users query without a break; counts queries and failures.

    :param path: where they connect
    :param database: the database that they query
    :param number: of users, each with a connection of its own
    :param query: what they ask, over and over
    """

    def __init__(
        self,
        path: Path,
        database: str,
        number: int = 8,
        query: str = "SELECT count(*) FROM res_users",
    ):
        super().__init__(*[self._query] * number)
        self._asked = query
        self.done = 0
        self.errors: list[str] = []
        self._path = path
        self._database = database

    def _query(self):
        connection = self._connect()
        while not self._stop.is_set():
            error = None
            try:
                connection.cursor().execute(self._asked)
                connection.commit()
            except psycopg2.Error as failure:
                error = str(failure)
                connection = self._after_failure(connection)
            with self._lock:
                self.done += 1
                if error:
                    self.errors.append(error)
        connection.close()

    def _after_failure(self, connection):
        with contextlib.suppress(psycopg2.Error):
            connection.rollback()
        return self._connect() if connection.closed else connection

    def _connect(self):
        while True:
            try:
                return psycopg2.connect(**self._path._asdict(), dbname=self._database)
            except psycopg2.Error:
                if self._stop.wait(0.1):
                    raise


class Watched(AtOnce):
    """A context that sees how many direct connections load modules at once, and as which roles.

    :param whole: the ``Deployment`` that they belong to
    """

    def __init__(self, whole):
        super().__init__(self._watch)
        self.most, self.roles = 0, set()
        self._whole = whole

    def _watch(self):
        query = "SELECT usename FROM pg_stat_activity WHERE application_name LIKE '%-loading'"
        while not self._stop.wait(0.02):
            rows = self._whole.postgres.execute(query)
            self.most = max(self.most, len(rows))
            self.roles.update(role for (role,) in rows)
