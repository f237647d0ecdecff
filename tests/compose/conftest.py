"""The engine, started once for all workers of pytest; without ``./run compose`` there are none."""

from __future__ import annotations

import contextlib
import os
import pathlib

import pytest

from ..stack.process import run_folder, started
from .engine import engine

collect_ignore_glob = [] if os.environ.get("BUS_ALT_ENGINE") else ["test_*.py"]

# for pytest's workers: where the engine is that their parent has started
FOLDER, FIRST = "BUS_ALT_ENGINE_FOLDER", "BUS_ALT_ENGINE_PID"

_stack = contextlib.ExitStack()


def pytest_sessionstart(session):
    if os.environ.get("BUS_ALT_ENGINE") and FOLDER not in os.environ:
        folder = _stack.enter_context(run_folder())
        running = _stack.enter_context(started(engine(folder)))
        os.environ.update({FOLDER: str(folder), FIRST: str(running.first)})


def pytest_sessionfinish(session):
    _stack.close()


@pytest.fixture(scope="session", name="engine")
def running_engine():
    running = engine(pathlib.Path(os.environ[FOLDER]), int(os.environ[FIRST]))
    yield running
    running.remove_own()
