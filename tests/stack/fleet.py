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

    from odoo.addons.bus_alt_connection import inbox, listener, load_settings

    settings = load_settings()
    fleet = [listener.Listener(settings, inbox.Inbox("imbus", True)) for _ in range(int(number))]
    for thread in fleet:
        thread.start()
    while any(thread.state.name != "listening" for thread in fleet):
        time.sleep(0.1)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    before = time.process_time()
    time.sleep(float(seconds))
    cpu = time.process_time() - before
    proven = max(time.monotonic() - thread.state.proven for thread in fleet)
    deaf = sum(thread.state.name != "listening" for thread in fleet)
    answers.write(json.dumps({"cpu": cpu, "proven": proven, "deaf": deaf}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
