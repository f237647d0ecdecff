"""The recipes of docs/docker.rst, as they are pasted: beside PostgreSQL, and behind nginx."""

from __future__ import annotations

import contextlib
import time

import pytest
import requests

from ..stack.guide import CHECKOUT, page_blocks
from ..stack.process import wait_until
from .checks import (
    KILLED,
    SECRETS,
    deliver,
    exit_codes,
    login,
    people_chat,
    shown_secrets,
    users,
)
from .project import Project, with_database

STOP = 10  # seconds
IMAGE = "odoo-with-bus_alt_connection"


def recipes() -> dict[str, dict]:
    """Return the files of each recipe by their names."""
    blocks = [one for one in page_blocks("docs/docker.rst") if one.language != "shell"]
    yamls, inis, (nginx,) = (
        [one.text for one in blocks if one.language == language]
        for language in ("yaml", "ini", "nginx")
    )
    beside, prefork = merged(yamls[0]), merged(*yamls)
    added = inis[1].replace("[options]\n", "")
    return {
        "beside": {"docker-compose.yml": beside, "odoo.conf": inis[0]},
        "prefork": {
            "docker-compose.yml": prefork,
            "odoo.conf": inis[0] + added,
            "nginx.conf": nginx,
        },
        "image": {"docker-compose.yml": of_image(beside), "odoo.conf": inis[0]},
    }


def merged(*texts: str) -> str:
    """Return the compose file of an operator who has PostgreSQL, with these recipes in it."""
    import yaml

    operators = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    whole = {
        "services": {"postgres": operators["services"]["postgres"]},
        "configs": operators["configs"],
        "volumes": {"postgres": None},
    }
    for text in texts:
        recipe = yaml.safe_load(text)
        whole["services"].update(recipe["services"])
        whole["volumes"].update(recipe.get("volumes", {}))
    # Compose reads the operator's file as it is: a $ of the role's script stays one
    return yaml.safe_dump(whole, sort_keys=False)


def of_image(text: str) -> str:
    """Return the recipe with the project's own image."""
    import yaml

    whole = yaml.safe_load(text)
    odoo = whole["services"]["odoo"]
    odoo["image"] = IMAGE
    del odoo["entrypoint"]
    odoo["volumes"] = [one for one in odoo["volumes"] if "bus_alt_connection" not in one]
    return yaml.safe_dump(whole, sort_keys=False)


@pytest.fixture(scope="module", params=["beside", "prefork", "image"])
def project(engine, request):
    project = Project(
        engine, "recipe", SECRETS, files=recipes()[request.param], folder=f"recipe-{request.param}"
    )
    if request.param == "image":
        engine.build(IMAGE, project.folder)
    with project.running("--build", before=with_database, keep_volumes=True):
        wait_until(lambda: answers(project), "the pages", 60)
        yield project


def answers(project: Project) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{project.url}/web/login", timeout=60).ok
    return False


def is_prefork(project: Project) -> bool:
    return "nginx" in project.services()


@pytest.mark.smoke
def test_all_well(project):
    """The recipe's own check, a login, 50 of 50 live, no root, read-only, no password shown."""
    assert set(project.health().values()) <= {"healthy", "running"}
    done = project.exec("odoo", "odoo", "buscheck")
    assert done.stdout.splitlines()[-1] == "Notifications arrive."
    assert login(project)
    assert deliver(project) == 50
    assert [service for service, uid in users(project).items() if uid == 0] == []
    read_only = {
        service: project.inspect(service)["HostConfig"]["ReadonlyRootfs"]
        for service in project.services()
    }
    assert read_only == {service: service != "postgres" for service in read_only}
    assert shown_secrets(project) == []


@pytest.mark.smoke
def test_it_asks_the_pooled_connection_where_it_leads(project):
    """``imdispatcher_db_host = auto``, in Docker's network."""
    environ = ("--env=IMDISPATCHER_DB_HOST=auto", "--env=IMDISPATCHER_DB_PORT=")
    words = ["exec", "-T", *environ, "odoo", "odoo", "buscheck"]
    done = project.compose(*words, check=False)
    assert done.stdout.splitlines()[-1:] == ["Notifications arrive."], done.stdout + done.stderr


def test_two_people_chat(project):
    people_chat(project)


def test_ready_is_of_the_process_with_the_websockets(project):
    if not is_prefork(project):
        return
    ready = requests.get(f"{project.url}/bus_alt_connection/ready", timeout=10)
    assert ready.status_code == 200 and ready.json()["listeners"][0]["state"] == "listening"
    assert requests.get(f"{project.url}/bus_alt_connection/metrics", timeout=10).status_code == 404
    project.compose("stop", "postgres")
    try:
        wait_until(
            lambda: (
                requests.get(f"{project.url}/bus_alt_connection/ready", timeout=10).status_code
                == 503
            ),
            "not ready",
        )
    finally:
        project.compose("start", "postgres")
    wait_until(
        lambda: requests.get(f"{project.url}/bus_alt_connection/ready", timeout=10).ok, "ready"
    )


def test_the_memory_limits_fit(project):
    """All processes of a server together use less than the container's limit."""
    if not is_prefork(project):
        return
    limit = project.inspect("odoo")["HostConfig"]["Memory"]
    script = "print(sum(int(l.split()[1]) for p in __import__('glob').glob('/proc/[0-9]*/status')"
    script += " for l in open(p) if l.startswith('VmRSS')) * 1024)"
    used = int(project.exec("odoo", "python3", "-c", script).stdout)
    print(f"Odoo's processes use {used / 2**20:.0f} MB of {limit / 2**20:.0f} MB")
    assert 0 < used < limit / 2
    log = project.log("odoo")
    assert "virtual memory limit" not in log and "memory limit" not in log


@pytest.mark.smoke
def test_an_odoo_that_is_made_anew_is_found(project):
    """nginx asks for the name again: Odoo may have another address then."""
    if not is_prefork(project):
        return
    project.compose("up", "--detach", "--force-recreate", "--no-deps", "odoo")
    wait_until(lambda: answers(project), "the pages", 60)
    assert deliver(project) == 50


def test_stop_ends_all_in_time(project):
    begin = time.monotonic()
    project.compose("stop")
    took = time.monotonic() - begin
    codes = exit_codes(project)
    print(f"stopped within {took:.1f} s: {codes}")
    assert KILLED not in codes.values() and took <= STOP
