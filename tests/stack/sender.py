"""Runs inside Odoo: commits a bus notification for each line on standard input."""

import json
import sys
import time


def main(conf: str, database: str):
    answers, sys.stdout = sys.stdout, sys.stderr

    import odoo
    import odoo.modules.registry
    import odoo.service.server
    from odoo import SUPERUSER_ID, api

    from tests.stack import series

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    odoo.tools.config.parse_config(["-c", conf, "-d", database, "--no-http"])
    odoo.service.server.load_server_wide_modules()
    registry = odoo.modules.registry.Registry(database)
    answer(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        with registry.cursor() as cr:
            series.send(api.Environment(cr, SUPERUSER_ID, {}), order["channel"], order["text"])
            begin = time.monotonic()
            cr.commit()
            end = time.monotonic()
        answer(begin=begin, end=end)


if __name__ == "__main__":
    main(*sys.argv[1:])
