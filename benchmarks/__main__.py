"""``./run bench NAME``: latency (the default), cron, backups or rivals."""

import sys

from tests.stack.process import end_on_signals

from . import backups, cron, latency, rivals

BENCHMARKS = {
    "latency": latency.main,
    "cron": cron.main,
    "backups": backups.main,
    "rivals": rivals.main,
}

if __name__ == "__main__":
    arguments = sys.argv[1:]
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "latency"
    if name not in BENCHMARKS:
        sys.exit(f"run bench: no benchmark {name}; there are {', '.join(BENCHMARKS)}")
    end_on_signals()
    BENCHMARKS[name](arguments)
