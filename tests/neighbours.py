"""``./run neighbours``: Odoo with this addon and one of others, loaded before it and after it.

The packages are those of PyPI. An addon of OCA's is a few lines of our own that replace the same
functions, but for queue_job. Results go into ``docs/neighbours.json``, with the date, and from
there into the table of ``docs/neighbours.rst``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import sys

from .stack import neighbours, series
from .stack.deployment import running_deployment
from .stack.odoo import CHECKOUT
from .stack.process import CACHE, run_folder
from .stack.queue_job import job_is_done, wait_for_runner
from .stack.wheels import QUEUE_JOB, unpacked

RESULTS = CHECKOUT / "docs" / "neighbours.json"
REQUIREMENTS = CHECKOUT / "tests" / "requirements-neighbours.txt"
NUMBER = 100  # notifications
ORDERS = ("before", "after")
OWN = "bus_alt_connection"
CLASS = "Application" if series.NUMBER >= 16 else "Root"

OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor
trace.set_tracer_provider(TracerProvider())
Psycopg2Instrumentor().instrument(skip_dep_check=True, enable_commenter={})
"""

# what each addon does when it is loaded; "{}" of a name that has none is the same
NEIGHBOURS = {
    "sentry-sdk": """
import sentry_sdk
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", attach_stacktrace=True, traces_sample_rate=1.0)
""",
    "OCA sentry": f"""
import odoo.http, sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1")
odoo.http.{CLASS} = SentryWsgiMiddleware(odoo.http.{CLASS})
""",
    "opentelemetry-instrumentation-psycopg2": OPENTELEMETRY.format(False),
    "opentelemetry-instrumentation-psycopg2, SQL comments": OPENTELEMETRY.format(True),
    "ddtrace, DBM full": """
import ddtrace
ddtrace.patch(psycopg=True)
""",
    "elastic-apm": """
import elasticapm
elasticapm.Client(service_name="odoo", server_url="http://127.0.0.1:9")
elasticapm.instrument()
""",
    "newrelic, class wrapped": f"""
import odoo.http, newrelic.agent
newrelic.agent.initialize()
odoo.http.{CLASS} = newrelic.agent.WSGIApplicationWrapper(odoo.http.{CLASS})
""",
    # a websocket breaks in its wrapper, without this addon and a pooler, too
    "newrelic, method wrapped but for websockets": f"""
import odoo.http, newrelic.agent
newrelic.agent.initialize()
own = odoo.http.{CLASS}.__call__
traced = newrelic.agent.WSGIApplicationWrapper(own)
def called(self, environ, start_response):
    websocket = environ.get("PATH_INFO") == "/websocket"
    call = own.__get__(self) if websocket else traced.__get__(self)
    return call(environ, start_response)
odoo.http.{CLASS}.__call__ = called
""",
    "OCA session_db": """
import odoo.http, odoo.sql_db
own = odoo.http.root.session_store.get
def get(sid):
    with odoo.sql_db.db_connect("postgres").cursor() as cr:
        cr.execute("SELECT %s", [sid])
    return own(sid)
odoo.http.root.session_store.get = get
""",
    "OCA slow_statement_logger": """
import time, odoo.sql_db
own = odoo.sql_db.Cursor.execute
def execute(self, query, params=None, log_exceptions=None):
    begin = time.monotonic()
    try:
        return own(self, query, params, log_exceptions)
    finally:
        self.slowest = max(getattr(self, "slowest", 0), time.monotonic() - begin)
odoo.sql_db.Cursor.execute = execute
""",
    "db_connect wrapped": """
import odoo.sql_db
own = odoo.sql_db.db_connect
def db_connect(*args, **kwargs):
    return own(*args, **kwargs)
odoo.sql_db.db_connect = db_connect
""",
    "OCA queue_job": "",
}
ENVIRON = {
    "DD_DBM_PROPAGATION_MODE": "full",
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "NEW_RELIC_DEVELOPER_MODE": "true",
}


@dataclasses.dataclass
class Result:
    """What was seen with one neighbour in one order."""

    delivered: int = 0
    cron: bool = False
    ready: int = 0
    why: str = ""  # it does not work, or an ERROR of this addon
    ok: bool = False


def packages() -> pathlib.Path:
    """Return a folder for ``PYTHONPATH`` with the tracers."""
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"neighbours-{key}"
    if not folder.exists():
        made = folder.with_name(f"{folder.name}.{os.getpid()}")
        environ = {**os.environ, "PIP_CACHE_DIR": str(CACHE / "pip")}
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", made, "-r", REQUIREMENTS]
        subprocess.run(pip, check=True, env=environ)
        made.rename(folder)
    return folder


def versions(folder: pathlib.Path) -> dict[str, str]:
    """Return the versions of the packages, by name."""
    found = {}
    for path in folder.glob("*.dist-info"):
        name, _dash, version = path.name[: -len(".dist-info")].rpartition("-")
        found[name.replace("_", "-")] = version
    return found


def run(whole, folder: pathlib.Path, name: str, order: str, path: str) -> Result:
    """Start a server with this neighbour, and see what works."""
    from .odoo.conftest import running

    addon = "queue_job"
    if name != "OCA queue_job":
        addon = neighbours.addon(folder, f"neighbour_{order}", NEIGHBOURS[name])
    modules = [addon, OWN] if order == "before" else [OWN, addon]
    options = {
        **whole.direct_settings,
        "server_wide_modules": ",".join([series.SERVER_WIDE, *modules]),
        "max_cron_threads": 1,
    }
    environ = {**ENVIRON, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{path}"}
    addons = f"{series.ADDONS},{CHECKOUT},{folder}"
    result = Result()
    try:
        with running(whole, options=options, environ=environ, addons_path=addons) as site:
            result.delivered = site.deliver(NUMBER)
            result.cron = not series.CRON_LISTENS or site.starts(10)
            result.ready = site.odoo.ready().status_code
            if addon == "queue_job":
                wait_for_runner(site.odoo)
                if not job_is_done(whole.postgres, site.odoo, site.sender, 10):
                    result.why = "its job stays pending"
            log = site.odoo.log().splitlines()
            bad = [line for line in log if f"addons.{OWN}" in line and " ERROR " in line]
            result.why = result.why or (bad[0].partition(OWN)[2] if bad else "")
            if "Failed to load server-wide module" in site.odoo.log():
                result.why = "the neighbour could not be loaded"
    except Exception as error:
        result.why = (str(error).splitlines() or [repr(error)])[0][:200]
    well = result.delivered == NUMBER and result.cron and result.ready == 200
    result.ok = well and not result.why
    return result


def main():
    parser = argparse.ArgumentParser(prog="./run neighbours", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone")
    arguments = parser.parse_args()
    chosen = arguments.names or list(NEIGHBOURS)
    for name in chosen:
        if name not in NEIGHBOURS:
            parser.error(f"no neighbour {name}; there are {', '.join(NEIGHBOURS)}")
    path, today = packages(), datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with contextlib.ExitStack() as stack:
        whole = stack.enter_context(
            running_deployment("bus,queue_job", others=unpacked(*QUEUE_JOB))
            if series.NUMBER == 19
            else running_deployment()
        )
        folder = stack.enter_context(run_folder())
        for number, name in enumerate(chosen):
            rows = kept.setdefault(f"{series.SERIES} {name}", {})
            for order in ORDERS:
                print(f"• {name}, {order}", file=sys.stderr, flush=True)
                found = run(whole, folder / str(number), name, order, str(path))
                print(f"  {found}", file=sys.stderr, flush=True)
                rows[order] = dataclasses.asdict(found)
            package = name.partition(",")[0].replace("OCA sentry", "sentry-sdk")
            version = versions(path).get(package, "")
            rows.update(name=name, odoo=series.SERIES, version=version, date=today)
            RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    ok = all(kept[f"{series.SERIES} {name}"][order]["ok"] for name in chosen for order in ORDERS)
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
