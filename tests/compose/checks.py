"""What each recipe for containers has to do: the same checks for all of them."""

from __future__ import annotations

import contextlib
import re
import secrets

import requests

from ..stack.browser import chromium
from ..stack.client import BusClient
from .project import ContainerSender, Project, Site

# quotes, blanks and what shells, Compose, INI files and URLs give a meaning to
SECRETS = {
    "ODOO_DB_PASSWORD": """o'd "oo" $HOME ${X} %s %% @h:5432/#?&;\\ é""",
    "POSTGRES_PASSWORD": """p'g "sql" $$ %(x)s @:/#""",
    "PGBOUNCER_ADMIN_PASSWORD": """b'ouncer "a" $1 % @:""",
}

KILLED = 137  # the exit code of a container that did not end in time


# Alice, Bob and their chat, which an earlier project may have made in this database
PEOPLE = """
people = []
for name in ("alice", "bob"):
    person = env["res.users"].search([("login", "=", name)]) or env["res.users"].create(
        {"name": name.capitalize(), "login": name, "password": name,
         "group_ids": [(4, env.ref("base.group_user").id)]})
    people.append(person)
alice, bob = people
chat = env["discuss.channel"].with_user(alice)._get_or_create_chat([bob.partner_id.id])
env.cr.commit()
print("conversations", [chat.id])
"""


def deliver(project: Project, number: int = 50, site: Site | None = None, **where) -> int:
    """Send notifications and return how many a websocket shows.

    :param site: where the websocket is, by default the project's
    :param where: the container and the network of the sender
    """
    channel = f"channel-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(contextlib.closing(ContainerSender(project, **where)))
        client = stack.enter_context(BusClient(site or project, channel))
        for i in range(number):
            sender.send(channel, f"message {i}")
        with contextlib.suppress(TimeoutError):
            client.wait_for(f"message {number - 1}", 30)
        return len(client.received)


def login(project: Project, name: str = "admin", password: str = "admin") -> bool:
    """Tell whether this user can log in on the login page."""
    session = requests.Session()
    page = session.get(f"{project.url}/web/login", timeout=60).text
    token = re.search(r'csrf_token: "(\w+)"|name="csrf_token" value="(\w+)"', page)
    form = {"login": name, "password": password, "csrf_token": token[1] or token[2]}
    return "/odoo" in session.post(f"{project.url}/web/login", data=form, timeout=60).url


def people_chat(project: Project):
    """Let two people write to each other in browsers."""
    printed = project.shell("odoo", PEOPLE)
    chat = int(re.search(r"^conversations \[(\d+)", printed, re.M)[1])
    with chromium(project.folder / "chromium") as person:
        alice, bob = person("alice"), person("bob")
        for one in (alice, bob):
            one.open(project.url, chat)
            # the first page may show another conversation while the chats are still being loaded
            one.look_at(project.url, chat)
        asks, answers = (f"{text} {secrets.token_hex(4)}" for text in ("Are you there", "I am"))
        try:
            alice.write(asks)
            assert alice.sees(asks) and bob.sees(asks)
            bob.write(answers)
            assert alice.sees(answers)
        finally:
            for one in (alice, bob):
                one.screenshot(f"{project.folder.name}-{one.login}")


def texts_of(project: Project) -> dict[str, str]:
    """Return what others can read of a project: by its name, each log, process list and command."""
    found = {"docker compose logs": project.log(), "ps": project.engine.command_lines()}
    for service in project.health():
        told = project.inspect(service)
        command = [told["Path"], *told["Args"], told["Config"].get("Healthcheck")]
        found[f"inspect {service}"] = str(command)
    return found


def shown_secrets(project: Project) -> list[str]:
    """Return where a password can be read that should not be readable there."""
    return [
        f"{name} in {where}"
        for where, text in texts_of(project).items()
        for name, secret in project.environ.items()
        if secret in text or secret.replace("'", "''") in text
    ]


def users(project: Project) -> dict[str, int]:
    """Return the user id of the first process in each container."""
    found = {}
    for service in project.services():
        pid = project.inspect(service)["State"]["Pid"]
        found[service] = project.uid_of(pid)
    return found


def exit_codes(project: Project) -> dict[str, int]:
    return {service: project.inspect(service)["State"]["ExitCode"] for service in project.health()}
