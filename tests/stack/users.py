"""Other sessions in the same database, while a test does something else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import psycopg2

from .odoo import Endpoint


class BackgroundThreads:
    """A context in which each of these runs in a thread; its end sets ``_stop`` and waits."""

    def __init__(self, *functions: Callable[[], None]):
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=function) for function in functions]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        for thread in self._threads:
            thread.join(70)


class Users(BackgroundThreads):
    """A context in which users query without a pause; counts queries and failures.

    :param endpoint: where they connect
    :param database: the database that they query
    :param number: of users, each with a connection of its own
    :param query: the statement that they repeat
    """

    def __init__(
        self,
        endpoint: Endpoint,
        database: str,
        number: int = 8,
        query: str = "SELECT count(*) FROM res_users",
    ):
        super().__init__(*[self._query] * number)
        self._sql = query
        self.done = 0
        self.errors: list[str] = []
        self._endpoint = endpoint
        self._database = database

    def _query(self):
        connection = self._connect()
        while not self._stop.is_set():
            error = None
            try:
                connection.cursor().execute(self._sql)
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
                return psycopg2.connect(**self._endpoint._asdict(), dbname=self._database)
            except psycopg2.Error:
                if self._stop.wait(0.1):
                    raise


class LoadingSessions(BackgroundThreads):
    """A context that samples the direct connections in which modules are loaded: the most at once
    (``most``), and their roles.

    :param deployment: the ``Deployment`` that they belong to
    """

    def __init__(self, deployment):
        super().__init__(self._sample)
        self.most, self.roles = 0, set()
        self._deployment = deployment

    def _sample(self):
        query = "SELECT usename FROM pg_stat_activity WHERE application_name LIKE '%-loading'"
        while not self._stop.wait(0.02):
            rows = self._deployment.postgres.execute(query)
            self.most = max(self.most, len(rows))
            # from PostgreSQL 18 on, one that is not logged in yet has none
            self.roles.update(role for (role,) in rows if role)
