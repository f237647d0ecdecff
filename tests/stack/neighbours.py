"""Other people's server-wide addons, in a few lines of our own, and an Odoo that loads them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from . import series
from .odoo import CHECKOUT, odoo_environ

MANIFEST = str(
    {
        "name": "a neighbour",
        "version": "1.0",
        "license": "LGPL-3",
        "depends": ["base"],
        "post_load": "post_load",
    }
)

# loads the addons as a server does, then asks without a server or a database
LOAD = """
import logging, sys
import odoo
try:
    import odoo.cli  # 19.0
except ImportError:
    pass
odoo.tools.config.parse_config(sys.argv[1:])
import odoo.service.server
import odoo.http
odoo.service.server.load_server_wide_modules()
from werkzeug.test import Client
from werkzeug.wrappers import Response

def ask(path="/bus_alt_connection/ready"):
    return Client(odoo.http.root, Response).get(path)
"""


def addon(folder: pathlib.Path, name: str, post_load: str) -> str:
    """Write an addon with this code in its ``post_load``, and return its name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__manifest__.py").write_text(MANIFEST)
    lines = "".join(f"    {line}\n" for line in post_load.strip().splitlines())
    (folder / name / "__init__.py").write_text(f"def post_load():\n{lines}")
    return name


def load(
    folder: pathlib.Path, modules: list[str], code: str, before: str = "", **environ
) -> subprocess.CompletedProcess:
    """Load these addons server-wide, in this order, and then run code.

    No server is needed: the settings lead nowhere.

    :param folder: with the neighbours
    :param before: code that runs before Odoo is imported
    """
    conf = folder / "odoo.conf"
    conf.write_text(
        "[options]\n"
        f"addons_path = {series.ADDONS},{CHECKOUT},{folder}\n"
        f"server_wide_modules = {series.SERVER_WIDE},{','.join(modules)}\n"
        f"data_dir = {folder}\n"
        "db_host = 127.0.0.1\ndb_port = 9\ndb_user = nobody\n"
        "imdispatcher_db_host = 127.0.0.1\nimdispatcher_db_port = 9\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", before + LOAD + code, "-c", str(conf)],
        env=odoo_environ({"PYTHONHASHSEED": "0", **environ}),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert os.path.exists(conf)
    return done
