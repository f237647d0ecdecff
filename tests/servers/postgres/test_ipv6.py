"""A server that has an IPv6 address is found, and reached, there."""

import json
import subprocess
import sys

from ...stack.ipv6 import ADDRESS
from ...stack.odoo import CHECKOUT


def test_auto_goes_to_an_ipv6_address():
    done = subprocess.run(
        [sys.executable, "-m", "tests.stack.ipv6"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    host, hostaddr, port = told["where"]
    assert ADDRESS in (host, hostaddr)
    assert str(port) == str(told["server"])
