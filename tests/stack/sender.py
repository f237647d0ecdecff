"""Runs inside Odoo: commits a notification, a wake-up or a job for each line of standard input."""

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

    odoo.tools.config.parse_config(["-c", conf, "-d", database, "--no-http", "--db_maxconn=8"])
    odoo.service.server.load_server_wide_modules()
    registry = odoo.modules.registry.Registry(database)

    def commit(order: dict) -> dict:
        with series.environments(), registry.cursor() as cr:
            env = api.Environment(cr, SUPERUSER_ID, {})
            committed = []
            # runs before the callback of Odoo that sends the NOTIFY
            cr.postcommit.add(lambda: committed.append(time.monotonic()))
            made = {}
            if "delay" in order:
                made["uuid"] = env["queue.job"].with_delay()._test_job().uuid
            elif "job" in order:
                series.trigger(env, order["job"])
            else:
                series.send(env, order["channel"], order["text"])
            begin = time.monotonic()
            cr.commit()
            return {**made, "begin": begin, "committed": committed[0], "end": time.monotonic()}

    answer(ready=True)
    for line in sys.stdin:
        try:
            answer(**commit(json.loads(line)))
        except Exception as error:
            answer(error=str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
