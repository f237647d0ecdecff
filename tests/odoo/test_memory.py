"""What a cron worker's listener adds to the virtual memory, which Odoo's limit_memory_soft counts.

docs/sizing.rst, "Memory", has the figures.
"""

import re

import psutil
import pytest

from ..stack import series
from ..stack.process import wait_until
from .conftest import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not series.CRON_LISTENS, reason="no cron listener before 15.0"),
]

MB = 1e6


def memory(deployment, name: str, leads: bool = True, **options):
    """The memory of a cron worker that has run a job.

    :param leads: the one that listens for the others
    """
    with running(deployment, workers=2, **options) as site:
        found = wait_until(
            lambda: re.findall(r"WorkerCron \((\d+)\) alive", site.odoo.log()), "a cron worker"
        )
        if options.get("addon", True):
            site.says("cron_trigger: listening at ")
            assert site.starts(10)
            wait_until(lambda: site.odoo.ready().json().get("followers") == 2, "the others follow")
            names = [name for _pid, name, _port in site.postgres.listeners()]
            found = [pid for pid in found if (f"odoo-{pid}-listener" in names) is leads]
        process = psutil.Process(int(found[0]))
        info = process.memory_info()
        assert leads or process.num_threads() == 2, "as Odoo has them"
    print(f"{name}: virtual {info.vms / MB:.0f} MB, resident {info.rss / MB:.0f} MB")
    return info


def test_a_cron_worker_s_memory(deployment):
    cron = {"max_cron_threads": 2}
    ours = {**deployment.direct_settings, **cron}
    few = {"MALLOC_ARENA_MAX": "2"}
    stock = memory(deployment, "stock", addon=False, options=cron)
    follows = memory(deployment, "another process listens", leads=False, options=ours)
    with_addresses = memory(deployment, "db_host is an address", options=ours)
    by_name = deployment.pooled._replace(host="localhost")
    with_names = memory(deployment, "db_host is a name", db=by_name, options=ours)
    with_few = memory(deployment, "MALLOC_ARENA_MAX=2", db=by_name, options=ours, environ=few)
    # 64 MB of addresses and 8 MB of stack for each thread, of which few are ever used
    assert follows.vms - stock.vms < 10 * MB
    assert with_addresses.vms - stock.vms < 160 * MB
    assert with_names.vms - stock.vms < 240 * MB
    assert with_few.vms - stock.vms < 30 * MB
    for one in (follows, with_addresses, with_names, with_few):
        assert one.rss - stock.rss < 10 * MB
