"""The page "how it works" names the folders and files that are there."""

from __future__ import annotations

import pathlib
import re

CHECKOUT = pathlib.Path(__file__).parents[2]
ADDON = CHECKOUT / "bus_alt_connection"
PAGE = (CHECKOUT / "docs" / "how-it-works.rst").read_text(encoding="utf-8")
FOLDERS = {path.parent.name for path in ADDON.glob("*/__init__.py")} - {"tests"}


def test_each_folder_is_named_and_each_that_is_named_is_there():
    assert set(re.findall(r"``(\w+)/``", PAGE)) - {"bus_alt_connection"} == FOLDERS


def test_each_file_that_is_named_is_there():
    there = {path.name for path in ADDON.rglob("*.py")}
    assert set(re.findall(r"``(\w+\.py)``", PAGE)) <= there


def test_each_folder_says_what_it_is_for():
    for folder in FOLDERS - {"cli"}:
        text = (ADDON / folder / "__init__.py").read_text(encoding="utf-8")
        assert text.count('"""') == 2 and len(text.splitlines()) == 2, "one line, and no code"


def test_no_folder_has_more_than_a_dozen_modules():
    for folder in FOLDERS:
        assert len([p for p in (ADDON / folder).glob("*.py") if p.name != "__init__.py"]) <= 12
