"""Runs inside Odoo: so many bus listeners that have nothing to do."""

import json
import logging
import sys
import time


def main(conf: str, number: str, seconds: str):
    answers, sys.stdout = sys.stdout, sys.stderr

    import odoo.cli

    odoo.tools.config.parse_config(["-c", conf])
    logging.getLogger("odoo").setLevel(logging.WARNING)

    from odoo.addons.bus_alt_connection.integration.startup import load_settings
    from odoo.addons.bus_alt_connection.listener.inbox import Inbox
    from odoo.addons.bus_alt_connection.listener.listener import Listener
    from odoo.addons.bus_alt_connection.listener.status import State

    settings = load_settings()
    fleet = [
        Listener(settings, Inbox("imbus", catch_up_while_deaf=True)) for _ in range(int(number))
    ]
    for thread in fleet:
        thread.start()
    while any(thread.status.state is not State.LISTENING for thread in fleet):
        time.sleep(0.1)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    before = time.process_time()
    time.sleep(float(seconds))
    cpu = time.process_time() - before
    proven = max(time.monotonic() - thread.status.proven for thread in fleet)
    deaf = sum(thread.status.state is not State.LISTENING for thread in fleet)
    answers.write(json.dumps({"cpu": cpu, "proven": proven, "deaf": deaf}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
