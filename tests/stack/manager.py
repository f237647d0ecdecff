"""The database manager of a running Odoo, as its web page calls it."""

from __future__ import annotations

import html
import re

import requests

from .odoo import Odoo

MASTER_PASSWORD = "master-password"

OPTIONS = {"admin_passwd": MASTER_PASSWORD, "list_db": True}


def backup(odoo: Odoo, backup_format: str = "zip", database: str = "") -> bytes:
    """Return a backup of the server's database, or of another one."""
    answer = requests.post(
        f"{odoo.url}/web/database/backup",
        data={
            "master_pwd": MASTER_PASSWORD,
            "name": database or odoo.database,
            "backup_format": backup_format,
        },
        timeout=120,
    )
    if not answer.ok or "html" in answer.headers["Content-Type"]:
        why = " ".join(re.findall(r"error: [^<]*", answer.text))
        raise RuntimeError(f"no backup: {html.unescape(why)}\n{odoo.process.tail()}")
    return answer.content


def restore(odoo: Odoo, name: str, content: bytes):
    """Restore a backup as database ``name``."""
    answer = requests.post(
        f"{odoo.url}/web/database/restore",
        data={"master_pwd": MASTER_PASSWORD, "name": name, "copy": "true"},
        files={"backup_file": ("backup.zip", content)},
        timeout=300,
        allow_redirects=False,
    )
    if answer.status_code not in (302, 303):
        why = " ".join(re.findall(r"error: [^<]*", answer.text))
        raise RuntimeError(f"not restored: {answer.status_code} {why}\n{odoo.process.tail()}")


def duplicate(odoo: Odoo, name: str):
    """Copy the server's database to ``name``."""
    _post(odoo, "duplicate", {"name": odoo.database, "new_name": name})


def drop(odoo: Odoo, name: str):
    """Drop database ``name``."""
    _post(odoo, "drop", {"name": name})


def _post(odoo: Odoo, action: str, data: dict):
    answer = requests.post(
        f"{odoo.url}/web/database/{action}",
        data={"master_pwd": MASTER_PASSWORD, **data},
        timeout=300,
        allow_redirects=False,
    )
    if answer.status_code not in (302, 303):
        raise RuntimeError(f"{action}: {answer.status_code}\n{odoo.process.tail()}")
