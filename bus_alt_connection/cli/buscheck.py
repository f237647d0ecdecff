# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The command ``odoo-bin buscheck``; 19.0 loads this file alone, as ``odoo.cli.buscheck``."""

import argparse
import json
import sys

import odoo
from odoo.cli import Command


class Buscheck(Command):
    """Check that notifications will arrive: start the listener, and send it one"""

    name = "buscheck"

    def run(self, args):
        """Print what is found and end with 0 (all well), 1 (broken) or 2 (bad settings)."""
        parser = argparse.ArgumentParser(
            prog="odoo-bin buscheck", description=self.__doc__, epilog="Odoo's own options follow."
        )
        parser.add_argument("--json", action="store_true", help="for machines")
        known, rest = parser.parse_known_args(args)
        odoo.tools.config.parse_config(rest)
        odoo.modules.module.initialize_sys_path()

        # only now is the path of the addons known; this file is not always a part of one
        # pylint: disable-next=odoo-addons-relative-import
        from odoo.addons.bus_alt_connection import check, hooks, load_settings
        from odoo.addons.bus_alt_connection.settings import BadSetting

        try:
            settings = load_settings()
        except BadSetting as error:
            answer = {"ok": False, "verdict": str(error)}
            sys.stdout.write((json.dumps(answer) if known.json else f"✗ {error}") + "\n")
            sys.exit(2)
        findings = [check.Finding(check.BAD, text) for text in hooks.what_is_wrong()]
        findings += check.run(settings, hooks.direct_connections())
        answer = check.answer(settings, findings)
        text = json.dumps(answer, indent=2) if known.json else check.as_text(answer)
        sys.stdout.write(text + "\n")
        sys.exit(0 if answer["ok"] else 1)
