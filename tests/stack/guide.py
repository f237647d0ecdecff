"""The code blocks of the documentation, so that the tests run what operators paste."""

from __future__ import annotations

import configparser
import io
import pathlib
import re
import typing

import docutils.core
import docutils.nodes

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
FRONT = CHECKOUT / "docs" / "index.rst"  # Sphinx's own: nothing but its table of contents
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

    def at(self, places: dict) -> Container:
        """Return the same for other places.

        :param places: values to put in place of others, such as ``{"6432": "40123"}``
        """
        environ = {name: places.get(value, value) for name, value in self.environ.items()}
        parser = configparser.RawConfigParser()
        parser.read_string(self.conf)
        for name, value in parser.items("options"):
            parser.set("options", name, places.get(value, value))
        conf = io.StringIO()
        parser.write(conf)
        return Container(environ, conf.getvalue(), self.argv)


def compose_container(text: str, service: str, variables: dict) -> Container:
    """Return what a compose file sets for this service.

    :param variables: what stands in the environment of ``docker compose``
    """
    import yaml  # not there for the series that do without the documentation

    def variable(found) -> str:
        return variables.get(found[1], found[2] or "")

    document = yaml.safe_load(re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", variable, text))
    one = document["services"][service]
    environ = {name: str(value) for name, value in one.get("environment", {}).items()}
    conf = IMAGE_CONF
    for mount in one.get("configs", []):
        if mount["target"] == IMAGE_CONF_PATH:
            conf = document["configs"][mount["source"]]["content"]
    return Container(environ, conf, [*one.get("entrypoint", []), *one.get("command", [])])


def pod_container(text: str, name: str, conf: str) -> Container:
    """Return what a Kubernetes Deployment sets for this container.

    :param conf: what the secret with odoo.conf holds
    """
    one = pod_spec(text, name)
    environ = {row["name"]: row["value"] for row in one["env"]}
    return Container(environ, conf, one["command"])


def pod_spec(text: str, name: str) -> dict:
    """Return the specification of this container of a Kubernetes Deployment."""
    import yaml

    containers = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    (found,) = (one for one in containers if one["name"] == name)
    return found


def blocks() -> list[Block]:
    """Return all code blocks of README and the pages below docs/."""
    return [found for page in PAGES for found in _blocks_of(page)]


def section(page: str, title: str) -> list[Block]:
    """Return the code blocks of one section of a page, in order."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    titles = [(found.start(), found[1]) for found in re.finditer(r"^(.+)\n[=-]{3,}$", text, re.M)]
    (first,) = (start for start, one in titles if one == title)
    last = min((start for start, _one in titles if start > first), default=len(text))
    lines = text.count("\n", 0, first), text.count("\n", 0, last)
    name = pathlib.Path(page).name
    return [one for one in blocks() if one.page == name and lines[0] < one.line <= lines[1]]


def block(language: str, text: str = "") -> str:
    """Return the only block in this language that has this text."""
    (found,) = (one.text for one in blocks() if one.language == language and text in one.text)
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
        # no block has the line it is in, but its parent or its child may have
        line = next(one.line for one in (node, *node.findall(), node.parent) if one.line)
        yield Block(page.name, line, languages[0] if languages else "shell", node.astext() + "\n")
