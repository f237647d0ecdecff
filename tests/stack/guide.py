"""The code blocks of the documentation, so that the tests run what operators paste."""

from __future__ import annotations

import pathlib
import typing

import docutils.core
import docutils.nodes

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.rst", *sorted((CHECKOUT / "docs").glob("*.rst"))]


class Block(typing.NamedTuple):
    """One code block: its page, its first line there, its language and its text.

    A block after ``::`` is a command line and has the language ``shell``.
    """

    page: str
    line: int
    language: str
    text: str


def blocks() -> list[Block]:
    """Return all code blocks of README and the pages below docs/."""
    return [found for page in PAGES for found in _blocks_of(page)]


def block(language: str) -> str:
    """Return the text of the only block in this language."""
    (found,) = (found for found in blocks() if found.language == language)
    return found.text


def _blocks_of(page: pathlib.Path):
    doctree = docutils.core.publish_doctree(
        page.read_text(encoding="utf-8"), settings_overrides={"syntax_highlight": "none"}
    )
    for node in doctree.findall(docutils.nodes.literal_block):
        languages = [name for name in node["classes"] if name != "code"]
        # no block has the line it is in, but its parent or its child may have
        line = next(one.line for one in (node, *node.findall(), node.parent) if one.line)
        yield Block(page.name, line, languages[0] if languages else "shell", node.astext() + "\n")
