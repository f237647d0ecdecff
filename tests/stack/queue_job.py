"""Jobs of OCA's queue_job."""

from __future__ import annotations

import contextlib

from .odoo import Odoo, Sender
from .postgres import Postgres
from .process import wait_until


def wait_for_runner(odoo: Odoo):
    """Wait until the server's runner looks after its database."""
    ready = f"queue job runner ready for db {odoo.database}"
    wait_until(lambda: ready in odoo.log(), ready)


def job_is_done(postgres: Postgres, odoo: Odoo, sender: Sender, seconds: float) -> bool:
    """Make a job, and tell whether it is done within so many seconds."""
    uuid = sender.delay()["uuid"]
    query = "SELECT state FROM queue_job WHERE uuid = %s"
    with contextlib.closing(postgres.connect(odoo.database)) as connection:
        cursor = connection.cursor()

        def state():
            cursor.execute(query, [uuid])
            return cursor.fetchone()[0]

        with contextlib.suppress(TimeoutError):
            return wait_until(lambda: state() == "done", "the job is done", seconds)
        assert state() == "pending"
    return False
