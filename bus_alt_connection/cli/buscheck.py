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
        from odoo.addons.bus_alt_connection import check, load_settings, lookup, settings

        try:
            found = load_settings()
        except settings.BadSetting as error:
            answer = {"ok": False, "verdict": str(error)}
            sys.stdout.write((json.dumps(answer) if known.json else f"✗ {error}") + "\n")
            sys.exit(2)
        config = odoo.tools.config
        wrong = lookup.what_is_missing()
        if "bus_alt_connection" not in str(config.get("server_wide_modules")):
            wrong.append("bus_alt_connection is not in server_wide_modules (or --load, here too)")
        # a threaded server has one connection for bus and cron
        needed = 1 + (config["max_cron_threads"] if config["workers"] else 0)
        needed = needed if "cron worker" in lookup.find() else 1
        findings = [check.Finding(check.BAD, text) for text in wrong]
        findings += check.run(found, needed)
        answer = check.answer(found, findings)
        text = json.dumps(answer, indent=2) if known.json else check.as_text(answer)
        sys.stdout.write(text + "\n")
        sys.exit(0 if answer["ok"] else 1)
