"""Third-party addons from their wheels, each in a separate folder of the cache."""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import zipfile

from .process import CACHE

QUEUE_JOB = ("odoo-addon-queue-job==19.0.2.4.0.1", "openupgradelib==3.13.7")


def unpacked(*requirements: str) -> pathlib.Path:
    """Return a folder for ``addons_path`` (and ``PYTHONPATH``) with what these wheels hold."""
    folder = CACHE / "wheels" / requirements[0]
    if not folder.exists():
        made = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
        made.mkdir(parents=True)
        environ = {**os.environ, "PIP_CACHE_DIR": str(CACHE / "pip")}
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", made]
        subprocess.run([*pip, *requirements], check=True, env=environ)
        for wheel in made.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(made)
        for addon in (made / "odoo" / "addons").iterdir():
            addon.rename(made / addon.name)
        # a second folder of that name in PYTHONPATH would hide the one of Odoo
        shutil.rmtree(made / "odoo")
        made.rename(folder)
    return folder
