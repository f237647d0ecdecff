"""PostgreSQL at an IPv6 address, PgBouncer before it, and where ``auto`` then goes.

Runs inside a network namespace of its own, and prints a line of JSON.
"""

from __future__ import annotations

import json

from bus_alt_connection.config.parameters import load
from bus_alt_connection.postgres.proof import prove

from .deployment import Servers
from .network import enter_own_network, ip
from .process import run_folder, started

ADDRESS = "fd00::5"


def main():
    """Prove the direct connection that is found."""
    ip("-6", "addr", "add", f"{ADDRESS}/128", "dev", "lo", "nodad")
    with run_folder() as folder, started(Servers(folder, host=ADDRESS)) as servers:

        def parameters(database: str) -> dict:
            own = servers.pooled._asdict()
            return {"application_name": "odoo", "sslmode": "prefer", "database": database, **own}

        settings = load({}, {"imdispatcher_db_host": "auto"}, parameters)
        found = prove(settings.direct, settings.pooled, "postgres").parameters
        where = [found.get(key) for key in ("host", "hostaddr", "port")]
        print(json.dumps({"where": where, "server": servers.postgres.port}))


if __name__ == "__main__":
    enter_own_network("tests.stack.ipv6")
    main()
