"""Runs inside Odoo: forks processes that commit a notification and are killed at once."""

import os
import signal
import sys
import time


def main(conf: str, database: str, number: str):
    import odoo
    import odoo.modules.registry
    import odoo.service.server
    from odoo import SUPERUSER_ID, api

    from tests.stack import series

    odoo.tools.config.parse_config(["-c", conf, "-d", database, "--no-http"])
    odoo.service.server.load_server_wide_modules()
    registry = odoo.modules.registry.Registry(database)

    def commit(text: str):
        with series.environments(), registry.cursor() as cr:
            series.send(api.Environment(cr, SUPERUSER_ID, {}), text, text)
            cr.commit()

    for i in range(int(number)):
        odoo.sql_db.close_all()
        pid = os.fork()
        if not pid:
            commit(f"first {i}")
            time.sleep(0.3)
            commit(f"second {i}")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
