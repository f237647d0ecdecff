"""No password appears in a log at any level, an exception or a process list."""

import contextlib

import psutil
import pytest

from bus_alt_connection.config.settings import is_keyword

from ..stack import series
from ..stack.client import BusClient
from ..stack.process import wait_until

DEBUG = {"log_level": "debug_sql", "log_handler": ":DEBUG"}


def command_lines():
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield " ".join(process.cmdline())


@pytest.mark.parametrize("good", [True, False], ids=["right password", "wrong password"])
def test_passwords_stay_secret(deployment, good):
    secret = "hush-" + deployment.password if good else "hush-hush"
    if good:
        deployment.postgres.create_role("listener", secret, "")
    options = {
        **DEBUG,
        **deployment.direct_settings,
        **({"imdispatcher_db_sslpassword": "hush-of-a-key"} if is_keyword("sslpassword") else {}),
        "imdispatcher_db_user": "listener" if good else "odoo",
    }
    environ = {"IMDISPATCHER_DB_PASSWORD": secret}
    with deployment.odoo(options=options, environ=environ) as odoo, BusClient(odoo, "a"):
        said = "imbus: listening at" if good else "password authentication failed"
        wait_until(lambda: said in odoo.log(), said)
        shown = odoo.log() + "\n".join(command_lines())
        done = odoo.buscheck()
        shown += done.stdout + done.stderr
    shown += odoo.log()
    assert "DEBUG" in shown
    assert "hush" not in shown
    assert series.LOGS_ITS_PASSWORD or deployment.password not in shown


def test_an_update_keeps_them_secret(deployment):
    """It works on a direct connection of Odoo's own making, which writes down what it is given."""
    options = {
        **DEBUG,
        **deployment.direct_settings,
        "imdispatcher_db_password": deployment.password,
    }
    if is_keyword("sslpassword"):
        options["imdispatcher_db_sslpassword"] = "hush-of-a-key"
    with deployment.odoo(options=options, start=False) as odoo:
        done = odoo.run("-u", "bus", "--stop-after-init", "--no-http")
        shown = odoo.log() + done.stdout + done.stderr
    assert "-loading" in shown, "the direct connection stands in the log"
    assert "hush" not in shown
    assert series.LOGS_ITS_PASSWORD or deployment.password not in shown


def test_a_dsn_of_1_0_keeps_its_password(deployment):
    dsn = "host=a password=hush hush port=abc"
    with deployment.odoo(options={**DEBUG, "imdispatcher_db_dsn": dsn}, start=False) as odoo:
        done = odoo.run(check=False, timeout=60)
    assert done.returncode != 0
    assert "unknown setting imdispatcher_db_dsn" in done.stderr
    assert "hush" not in done.stdout + done.stderr
