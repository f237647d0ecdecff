"""A name server that does not answer blocks nobody for longer than a server that does not."""

import json
import subprocess
import sys
import time

import pytest

from ...stack import silent_dns
from ...stack.odoo import CHECKOUT

RUN = "from tests.stack import silent_dns; silent_dns.main()"


@pytest.mark.parametrize(
    "program",
    [RUN, f"from gevent import monkey; monkey.patch_all(); {RUN}"],
    ids=["threads", "greenlets, as in Odoo's gevent process"],
)
def test_each_wait_has_an_end(servers, tmp_path, program):
    if subprocess.run([*silent_dns.enter(), "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no namespaces here")
    told = {
        "folder": str(tmp_path),
        "socket": {**servers.direct._asdict(), "host": str(servers.postgres.folder)},
        "name": {"host": "a.example,b.example", "port": servers.direct.port},
    }
    done = subprocess.run(
        [*silent_dns.enter(), sys.executable, "-c", program],
        input=json.dumps(told) + "\n",
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    end = time.monotonic()
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    stopped = [one for one in said if "stopped" in one]
    assert [one["stopped"] for one in stopped] == [True] * 3, said
    (deaf,) = [one for one in said if "deaf" in one]
    assert "the name server did not answer within 1 s" in deaf["deaf"]
    assert deaf["after"] < 2, "one second for both names"
    (unknown,) = [one for one in said if "unknown" in one]
    assert f"the name server did not answer within {silent_dns.PROBE:g} s" in unknown["unknown"]
    assert unknown["after"] < silent_dns.PROBE + 2
    assert end - said[-1]["end"] < 2, "the process ends at once"
