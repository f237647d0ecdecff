"""The command, as README says to call it; tests/servers/buscheck has all that it finds."""

import ast
import contextlib
import json

import pytest

from ..stack import series
from ..stack.odoo import CHECKOUT

OURS = CHECKOUT / "bus_alt_connection"


@pytest.fixture
def idle(deployment):
    """An Odoo that is set up, but does not run."""
    options = {**deployment.direct_settings, "max_cron_threads": 2, "workers": 2}
    with deployment.odoo(start=False, options=options) as odoo:
        yield odoo


@pytest.mark.smoke
def test_all_well(idle, deployment):
    done = idle.buscheck()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Notifications arrive."
    assert "a NOTIFY on the pooled connection was heard at" in done.stdout
    assert "this Odoo opens 1 for its own" in done.stdout
    assert deployment.password not in done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_is_not_utf_8(idle, encoding):
    idle.environ.update(PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    done = idle.buscheck()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Notifications arrive."
    assert "[ok] a NOTIFY on the pooled connection was heard at" in done.stdout


def test_nothing_but_the_report(idle):
    idle.environ["PYTHONWARNINGS"] = "default"
    done = idle.buscheck()
    assert done.stdout.splitlines()[-1] == "Notifications arrive."
    assert "rcfile" not in done.stderr


def test_for_machines(idle, deployment):
    idle.environ["IMDISPATCHER_DB_HOST"] = "localhost"
    report = json.loads(idle.buscheck("--json").stdout)
    assert report["ok"] is True
    assert report["verdict"] == "Notifications arrive."
    rows = {row["name"]: row for row in report["settings"]}
    assert rows["host"]["value"] == "localhost"
    assert rows["host"]["source"] == "environment variable IMDISPATCHER_DB_HOST"
    assert rows["password"]["value"] == "(set)"


def test_the_file_names_no_folder_of_the_addons(idle, tmp_path):
    """Then the server, without --addons-path, would not find the addon."""
    assert "leaves out" not in idle.buscheck().stdout
    lines = idle.conf.read_text().splitlines()
    conf = tmp_path / "odoo.conf"
    conf.write_text("\n".join(line for line in lines if not line.startswith("addons_path")))
    said = idle.buscheck("-c", conf).stdout
    assert f"addons_path in {conf} leaves out" in said
    assert said.splitlines()[-1] == "Notifications arrive."


def test_broken(idle):
    idle.environ["IMDISPATCHER_DB_PORT"] = "1"
    done = idle.buscheck()
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("Notifications do NOT arrive: ")


def test_all_databases_where_odoo_cannot_list_them(idle):
    done = idle.buscheck("--all", "--db-filter=.", "--db_port=1")
    assert done.returncode == 1
    assert "db_host and db_port: " in done.stdout, done.stderr
    assert "Check Odoo's own db_host, db_port" in done.stdout
    assert "the databases cannot be listed" in done.stdout


def test_a_bad_setting(idle):
    idle.environ["IMDISPATCHER_DB_PORT"] = "abc"
    done = idle.buscheck()
    assert done.returncode == 2
    assert "bad setting imdispatcher_db_port" in done.stdout


def test_a_configuration_that_does_not_load_the_addon(deployment):
    with deployment.odoo(start=False, options=deployment.direct_settings, addon=False) as odoo:
        done = odoo.buscheck()
        assert done.returncode == 1
        assert "bus_alt_connection is not in server_wide_modules" in done.stdout


def test_the_command_with_odoo_rc(idle):
    done = idle.buscheck(rc=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Notifications arrive." in done.stdout


@pytest.fixture
def namesake(tmp_path):
    """A folder of addons with another addon of the same name, which has no command."""
    addon = tmp_path / "namesakes" / "bus_alt_connection"
    addon.mkdir(parents=True)
    (addon / "__init__.py").touch()
    (addon / "__manifest__.py").write_text(
        "{'name': 'namesake', 'depends': ['bus'], 'author': 'a', 'license': 'AGPL-3'}"
    )
    return addon


@contextlib.contextmanager
def beside(deployment, path: str):
    """An Odoo with these folders of addons, which does not run."""
    with deployment.odoo(start=False, options=deployment.direct_settings, addons_path=path) as odoo:
        yield odoo


def test_another_addon_of_this_name_comes_later(deployment, namesake):
    path = f"{series.ADDONS},{CHECKOUT},{namesake.parent}"
    with beside(deployment, path) as odoo:
        done = odoo.buscheck()
        assert done.returncode == 0, done.stdout + done.stderr
        remark = f"• {namesake} has the same name and is not loaded: {OURS} comes first"
        assert remark in done.stdout.splitlines()


def test_another_addon_of_this_name_comes_first(deployment, namesake):
    path = f"{series.ADDONS},{namesake.parent},{CHECKOUT}"
    with beside(deployment, path) as odoo:
        done = odoo.buscheck()
        assert done.returncode == 1
        if series.NUMBER < 19:  # a command comes with the addon that is loaded
            assert "Unknown command 'buscheck'" in done.stderr
            return
        assert done.stdout.startswith("✗ another addon of this name is loaded, not this one: ")
        assert f"{namesake} comes first" in done.stdout
        assert json.loads(odoo.buscheck("--json").stdout)["ok"] is False


@pytest.mark.parametrize("first", ["ours", "namesake"])
def test_the_log_tells_which_addon_runs(deployment, namesake, first):
    """At start, before any listener: a namesake says nothing of the kind."""
    path = {
        "ours": f"{series.ADDONS},{CHECKOUT},{namesake.parent}",
        "namesake": f"{series.ADDONS},{namesake.parent},{CHECKOUT}",
    }
    version = ast.literal_eval((OURS / "__manifest__.py").read_text())["version"]
    with beside(deployment, path[first]) as odoo:
        log = odoo.run("--stop-after-init", "--no-http").stderr
        assert log.count(f"bus_alt_connection {version} from {OURS} ") == (first == "ours")
