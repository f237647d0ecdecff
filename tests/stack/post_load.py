"""Plugin for pytest-odoo, which imports addons but leaves out Odoo's server-wide loading."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def loaded_server_wide():
    from odoo.addons.bus_alt_connection import post_load

    post_load()
