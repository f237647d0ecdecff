# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The command ``odoo-bin buscheck``; 19.0 loads this file alone, as ``odoo.cli.buscheck``."""

import argparse
import json
import os
import sys

import odoo
from odoo.cli import Command


class Buscheck(Command):
    """Check that notifications will arrive: both paths to PostgreSQL, and that they meet"""

    name = "buscheck"

    def run(self, args):
        """Print what is checked and end with 0 (all well), 1 (broken) or 2 (bad settings)."""
        parser = argparse.ArgumentParser(
            prog="odoo-bin buscheck", description=self.__doc__, epilog="Odoo's own options follow."
        )
        parser.add_argument("--json", action="store_true", help="for machines")
        known, rest = parser.parse_known_args(args)
        odoo.tools.config.parse_config(rest)
        odoo.modules.module.initialize_sys_path()

        # only now is the path of the addons known; this file is not always a part of one
        # pylint: disable-next=odoo-addons-relative-import
        from odoo.addons.bus_alt_connection import check, settings

        try:
            report = check.run(os.environ, odoo.tools.config)
        except settings.BadSetting as error:
            answer = {"ok": False, "error": str(error)}
            sys.stdout.write((json.dumps(answer) if known.json else f"✗ {error}") + "\n")
            sys.exit(2)
        if known.json:
            text = json.dumps(report.as_dict(), indent=2)
        else:
            text = report.as_text(colour=sys.stdout.isatty())
        sys.stdout.write(text + "\n")
        sys.exit(0 if report.ok else 1)
