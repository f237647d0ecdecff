# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The command ``odoo-bin buscheck``; 19.0 loads this file alone, as ``odoo.cli.buscheck``."""

from __future__ import annotations

import argparse
import configparser
import json
import os
import sys

import odoo
from odoo import addons
from odoo.cli import Command

COMMAND = os.path.join("cli", "buscheck.py")
NOT_IN_THE_FILE = "addons_path in {} leaves out {}: the server needs --addons-path, too"
# the marks, where they cannot be shown
ASCII = str.maketrans({"✓": "[ok]", "✗": "[failed]", "•": "-", "…": "...", "’": "'"})


def folders() -> list:
    """Return the folders called bus_alt_connection in addons_path; Python loads the first."""
    found = [os.path.realpath(os.path.join(path, "bus_alt_connection")) for path in addons.__path__]
    there = [path for path in found if os.path.exists(os.path.join(path, "__init__.py"))]
    return list(dict.fromkeys(there))


def conf_file() -> str:
    """Return the path of odoo.conf."""
    # from 19.0 on an option; the attribute of before warns with a stack
    return odoo.tools.config.options.get("config") or odoo.tools.config.rcfile


def is_in_the_file(folder: str) -> bool:
    """Tell whether the server finds this folder without ``--addons-path``."""
    config, parser = odoo.tools.config, configparser.RawConfigParser(strict=False)
    parser.read(conf_file())
    paths = parser.get("options", "addons_path", fallback="").split(",")
    paths += [os.path.dirname(odoo.release.__file__) + "/addons", config.addons_data_dir]
    return os.path.dirname(folder) in [os.path.realpath(path.strip()) for path in paths]


def finish(report: dict, text: str, status: int, as_json: bool) -> None:
    """Print the report, for machines or as this text, and end with this exit status."""
    sys.stdout.write(printable(json.dumps(report, indent=2) if as_json else text) + "\n")
    sys.exit(status)


def printable(text: str) -> str:
    """Return a text as the standard output can show it, which may not be UTF-8."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeError:
        text = text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


class Buscheck(Command):
    """Check that notifications will arrive: start the listener, and send it one"""

    name = "buscheck"

    def run(self, args):
        """Print what is found and end with 0 (all well), 1 (broken) or 2 (bad settings)."""
        parser = argparse.ArgumentParser(
            prog="odoo-bin buscheck", description=self.__doc__, epilog="Odoo's own options follow."
        )
        parser.add_argument("--json", action="store_true", help="for machines")
        parser.add_argument(
            "--all", action="store_true", help="look at all databases, not only at -d (db_name)"
        )
        known, rest = parser.parse_known_args(args)
        odoo.tools.config.parse_config(rest)
        odoo.modules.module.initialize_sys_path()

        loaded, *others = folders()
        if not os.path.exists(os.path.join(loaded, COMMAND)):
            verdict = f"another addon of this name is loaded, not this one: {loaded} comes first"
            verdict += f", before {', '.join(others)}"
            finish({"ok": False, "verdict": verdict}, f"✗ {verdict}", 1, known.json)
        # only now is the path of the addons known; this file is not always a part of one
        # pylint: disable-next=odoo-addons-relative-import
        from odoo.addons.bus_alt_connection.buscheck import checks, finding, report

        # pylint: disable-next=odoo-addons-relative-import
        from odoo.addons.bus_alt_connection.config.values import InvalidSetting

        # pylint: disable-next=odoo-addons-relative-import
        from odoo.addons.bus_alt_connection.integration import queue_job, resolve, startup

        # pylint: disable-next=odoo-addons-relative-import
        from odoo.addons.bus_alt_connection.postgres.session import one_line

        try:
            settings = startup.load_settings()
        except InvalidSetting as error:
            finish({"ok": False, "verdict": str(error)}, f"✗ {error}", 2, known.json)
        resolution = resolve.resolve()
        failed = list(resolution.missing)
        if "bus_alt_connection" not in resolve.server_wide_modules():
            failed.append("bus_alt_connection is not in server_wide_modules (or --load, here too)")
        findings = [finding.Finding(finding.Mark.FAILED, text) for text in failed]
        databases, row = settings.served, resolution.found.get("databases")
        if known.all and row:  # a function that is missing is among what failed
            try:
                databases = resolve.function_of(row)(force=True)
            except Exception as error:
                text = f"the databases cannot be listed: {one_line(error)}"
                findings.append(finding.Finding(finding.Mark.FAILED, text, "", False))
        findings += checks.run(settings, databases)
        notes = list(resolution.unloadable)
        if settings.has_direct_settings:
            notes = queue_job.describe_target(settings, resolution) + notes
        if not is_in_the_file(loaded):
            notes.append(NOT_IN_THE_FILE.format(conf_file(), os.path.dirname(loaded)))
        for path in others:
            notes.append(f"{path} has the same name and is not loaded: {loaded} comes first")
        findings += [finding.Finding(finding.Mark.NOTE, text) for text in notes]
        shown = report.report(settings, findings)
        finish(shown, report.format_report(shown), 0 if shown["ok"] else 1, known.json)
