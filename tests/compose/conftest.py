"""The engine, started once for all workers of pytest; without ``./run compose`` there are none."""

from __future__ import annotations

import contextlib
import os
import pathlib

import pytest
from xdist.scheduler import LoadScopeScheduling

from ..stack.process import run_folder, started
from .engine import engine

collect_ignore_glob = [] if os.environ.get("BUS_ALT_ENGINE") else ["test_*.py"]

# for pytest's workers: where the engine is that their parent has started
FOLDER, FIRST = "BUS_ALT_ENGINE_FOLDER", "BUS_ALT_ENGINE_PID"

_stack = contextlib.ExitStack()


class PodsBesideTheOthers(LoadScopeScheduling):
    """Pods publish no port, so they are run while another worker has the machine's ports."""

    def _split_scope(self, nodeid: str) -> str:
        return "pods" if "test_kubernetes" in nodeid else "ports"


def pytest_xdist_make_scheduler(config, log):
    return PodsBesideTheOthers(config, log)


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
