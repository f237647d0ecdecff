"""The statements of a registry load in Odoo 20.0, run by a separate process.

20.0 takes session locks (``Registry.new``); no complete source of it runs here. A load holds the
shared lock, one that updates modules the exclusive one, each until its cursor is closed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

SHARED = "SELECT pg_advisory_lock_shared(hashtext('registry_loading'))"
EXCLUSIVE = "SELECT pg_advisory_lock(hashtext('registry_loading'))"


class Registry:
    """The part of 20.0's ``Registry`` that takes locks."""

    def init(self, db_name: str):
        import odoo

        self._db = odoo.sql_db.db_connect(db_name)

    @classmethod
    def new(cls, db_name: str, *, update_module: bool = False) -> tuple:
        """Load, and return when the lock was taken and when it was released (monotonic, s)."""
        registry = object.__new__(cls)
        registry.init(db_name)
        cr = registry._db.cursor()
        try:
            cr.execute("SET SESSION lock_timeout = '15s'")
            cr.execute(EXCLUSIVE if update_module else SHARED)
            begin = time.monotonic()
            cr.commit()
            for _statement in range(5):
                cr.execute("SELECT pg_sleep(0.01)")
                cr.commit()
            return begin, time.monotonic()
        finally:
            cr.close()


def visit(db_name: str):
    """Query as a page does, with a cursor from Odoo's pool."""
    import odoo

    with odoo.sql_db.db_connect(db_name).cursor() as cr:
        cr.execute("SELECT count(*) FROM ir_module_module")


def main(conf: str, database: str, seconds: str, loads: str, forks: str = "0"):
    """Print a line for each load: its kind, begin and end, or the error.

    :param forks: of this many processes, which one server would have
    """
    import odoo
    import odoo.modules.module
    import odoo.service.server

    odoo.tools.config.parse_config(["-c", conf, "-d", database, "--no-http"])
    odoo.modules.module.initialize_sys_path()
    # importable also where it is not loaded
    from odoo.addons.bus_alt_connection.integration import odoo_functions

    # the functions of 20.0, in this module
    ours = (
        odoo_functions.LoadTarget("registries", 14, "tests.stack.replay", "Registry.init"),
        odoo_functions.ReplaceTarget("registry locks", 14, "tests.stack.replay", "Registry.new"),
    )
    names = [row.name for row in ours]
    odoo_functions.TARGETS = ours + tuple(
        row for row in odoo_functions.TARGETS if row.name not in names
    )
    odoo.service.server.load_server_wide_modules()
    if "bus_alt_connection" in odoo.tools.config["server_wide_modules"]:
        # Odoo leaves this out for a module that was imported before
        odoo.addons.bus_alt_connection.post_load()

    from tests.stack.replay import Registry  # not __main__'s

    children = []
    for _child in range(int(forks)):
        children.append(os.fork())
        if not children[-1]:
            children.clear()
            break
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        if loads == "no":
            visit(database)
            time.sleep(random.uniform(0, 0.01))
            continue
        update = random.random() < 0.3
        record = {"update": update, "pid": os.getpid()}
        try:
            record["begin"], record["end"] = Registry.new(database, update_module=update)
        except Exception as error:
            record["error"] = str(error)
        os.write(1, json.dumps(record).encode() + b"\n")
        time.sleep(random.uniform(0, 0.02))
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
