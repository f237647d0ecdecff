"""The Patroni cluster of docs/patroni.rst at a switchover.

``./run faults --cluster`` tries more.
"""

import os
import subprocess
import sys

import pytest

from ..stack import series
from ..stack.odoo import CHECKOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        series.NUMBER != 19 or "BUS_ALT_CLUSTER" not in os.environ,
        reason="the recipe's cluster is tried with Odoo 19.0 from Debian",
    ),
]


def test_two_servers_show_everything_after_a_switchover():
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "switchover"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "pg1 → pg2" in done.stdout
