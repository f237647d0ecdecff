"""The engine, shared by all checks in containers; without ``./run compose`` there are none."""

from __future__ import annotations

import os

import pytest

from ..stack.process import run_folder, started

collect_ignore_glob = [] if os.environ.get("BUS_ALT_ENGINE") else ["test_*.py"]


@pytest.fixture(scope="session")
def engine():
    from .engine import engine

    with run_folder() as folder, started(engine(folder)) as running:
        yield running
