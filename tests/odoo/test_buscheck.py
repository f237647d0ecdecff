"""The command, as README says to call it; tests/servers/test_check.py has all that it finds."""

import json

import pytest

from ..stack import series


@pytest.fixture
def idle(deployment):
    """An Odoo that is set up, but does not run."""
    options = {**deployment.direct, "max_cron_threads": 2, "workers": 2}
    with deployment.odoo(start=False, options=options) as odoo:
        yield odoo


def test_all_well(idle, deployment):
    done = idle.buscheck()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Notifications arrive."
    assert "a NOTIFY on the pooled connection was heard at" in done.stdout
    number = 3 if series.CRON_LISTENS else 1
    assert f"this Odoo opens {number} for its own" in done.stdout
    assert deployment.password not in done.stdout + done.stderr


def test_for_machines(idle, deployment):
    idle.environ["IMDISPATCHER_DB_HOST"] = "localhost"
    report = json.loads(idle.buscheck("--json").stdout)
    assert report["ok"] is True
    assert report["verdict"] == "Notifications arrive."
    rows = {row["name"]: row for row in report["settings"]}
    assert rows["host"]["value"] == "localhost"
    assert rows["host"]["source"] == "environment variable IMDISPATCHER_DB_HOST"
    assert rows["password"]["value"] == "(set)"


def test_broken(idle):
    idle.environ["IMDISPATCHER_DB_PORT"] = "1"
    done = idle.buscheck()
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("Notifications do NOT arrive: ")


def test_a_bad_setting(idle):
    idle.environ["IMDISPATCHER_DB_PORT"] = "abc"
    done = idle.buscheck()
    assert done.returncode == 2
    assert "bad setting imdispatcher_db_port" in done.stdout


def test_a_configuration_that_does_not_load_the_addon(deployment):
    with deployment.odoo(start=False, options=deployment.direct, addon=False) as odoo:
        done = odoo.buscheck()
        assert done.returncode == 1
        assert "bus_alt_connection is not in server_wide_modules" in done.stdout


def test_the_command_with_odoo_rc(idle):
    done = idle.buscheck(rc=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Notifications arrive." in done.stdout
