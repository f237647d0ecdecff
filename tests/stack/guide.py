"""The code blocks of the documentation: the tests run what operators paste."""

from __future__ import annotations

import configparser
import io
import pathlib
import re
import typing

import docutils.core
import docutils.nodes

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
FRONT = CHECKOUT / "docs" / "index.rst"  # Sphinx needs it; it has a table of contents alone
PAGES = [CHECKOUT / "README.rst", *sorted({*(CHECKOUT / "docs").glob("*.rst")} - {FRONT})]


class Block(typing.NamedTuple):
    """One code block: its page, its first line there, its language and its text.

    A block after ``::`` is a command line and has the language ``shell``.
    """

    page: str
    line: int
    language: str
    text: str


# what the official image of Odoo has, and where it looks for its configuration
IMAGE_CONF = "[options]\naddons_path = /mnt/extra-addons\ndata_dir = /var/lib/odoo\n"
IMAGE_CONF_PATH = "/etc/odoo/odoo.conf"


class Container(typing.NamedTuple):
    """What a recipe sets for the container of Odoo: environment, odoo.conf, command line."""

    environ: dict
    conf: str
    argv: list

    def at(self, values: dict) -> Container:
        """Return the same with other hosts and ports.

        :param values: new values by the old ones, such as ``{"6432": "40123"}``
        """
        environ = {name: values.get(value, value) for name, value in self.environ.items()}
        parser = configparser.RawConfigParser()
        parser.read_string(self.conf)
        for name, value in parser.items("options"):
            parser.set("options", name, values.get(value, value))
        conf = io.StringIO()
        parser.write(conf)
        return Container(environ, conf.getvalue(), self.argv)


def compose_container(text: str, service: str, variables: dict) -> Container:
    """Return what a compose file sets for this service.

    :param variables: the environment of ``docker compose``
    """
    import yaml  # not installed for the series without the documentation's tests

    def variable(found) -> str:
        return variables.get(found[1], found[2] or "")

    document = yaml.safe_load(re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", variable, text))
    settings = document["services"][service]
    environ = {name: str(value) for name, value in settings.get("environment", {}).items()}
    conf = IMAGE_CONF
    for mount in settings.get("configs", []):
        if mount["target"] == IMAGE_CONF_PATH:
            conf = document["configs"][mount["source"]]["content"]
    return Container(environ, conf, [*settings.get("entrypoint", []), *settings.get("command", [])])


def pod_container(text: str, name: str, conf: str, secret: str) -> Container:
    """Return what a Kubernetes Deployment sets for this container of the project's image.

    :param conf: what the config map with odoo.conf holds
    :param secret: the value of its variables that come from a secret
    """
    environ = {row["name"]: row.get("value", secret) for row in pod_spec(text, name)["env"]}
    return Container(environ, conf, ["odoo"])


def pod_spec(text: str, name: str) -> dict:
    """Return the specification of this container of a Kubernetes Deployment."""
    import yaml

    containers = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    (spec,) = (container for container in containers if container["name"] == name)
    return spec


def blocks() -> list[Block]:
    """Return all code blocks of README and the pages below docs/."""
    return [found for page in PAGES for found in _blocks_of(page)]


def page_blocks(page: str) -> list[Block]:
    """Return the code blocks of one page, in order."""
    return [one for one in blocks() if one.page == pathlib.Path(page).name]


def section(page: str, title: str) -> list[Block]:
    """Return the code blocks of one section of a page, in order."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    titles = [(found.start(), found[1]) for found in re.finditer(r"^(.+)\n[=-]{3,}$", text, re.M)]
    (first,) = (start for start, found in titles if found == title)
    last = min((start for start, _title in titles if start > first), default=len(text))
    lines = text.count("\n", 0, first), text.count("\n", 0, last)
    name = pathlib.Path(page).name
    return [each for each in blocks() if each.page == name and lines[0] < each.line <= lines[1]]


def block(language: str, text: str = "") -> str:
    """Return the only block in this language that has this text."""
    (found,) = (each.text for each in blocks() if each.language == language and text in each.text)
    return found


def options(text: str) -> dict:
    """Return what an odoo.conf sets."""
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return dict(parser["options"])


def _blocks_of(page: pathlib.Path):
    doctree = docutils.core.publish_doctree(
        page.read_text(encoding="utf-8"), settings_overrides={"syntax_highlight": "none"}
    )
    for node in doctree.findall(docutils.nodes.literal_block):
        languages = [name for name in node["classes"] if name != "code"]
        # docutils leaves out the line of a block; its parent or its child may have one
        line = next(near.line for near in (node, *node.findall(), node.parent) if near.line)
        yield Block(page.name, line, languages[0] if languages else "shell", node.astext() + "\n")
