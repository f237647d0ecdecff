"""What the first ``docker compose up`` does."""

import pytest

from ..stack.odoo import Odoo

pytestmark = pytest.mark.slow


def test_odoo_makes_its_database_through_pgbouncer(deployment, tmp_path):
    odoo = Odoo(
        tmp_path / "odoo", deployment.pooled, database="made", options=deployment.direct_settings
    )
    try:
        odoo.run("-i", "bus", "--stop-after-init", "--no-http", "--without-demo=all")
        rows = deployment.postgres.execute(
            "SELECT state FROM ir_module_module WHERE name = 'bus'", dbname="made"
        )
        assert rows == [("installed",)]
    finally:
        deployment.pgbouncer.forget("made")
        deployment.postgres.execute("DROP DATABASE IF EXISTS made WITH (FORCE)")
