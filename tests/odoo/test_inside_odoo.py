"""Runs bus_alt_connection/tests inside a real Odoo, with pytest-odoo."""

import subprocess
import sys

from ..stack.odoo import CHECKOUT


def test_addons_own_tests(deployment):
    with deployment.odoo(options=deployment.direct_settings, start=False) as odoo:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider"),
                *("-p", "tests.stack.post_load"),
                *("--rootdir", str(CHECKOUT), str(CHECKOUT / "bus_alt_connection" / "tests")),
            ],
            env={**odoo.environ, "ODOO_RC": str(odoo.conf)},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
