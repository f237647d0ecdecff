"""A bad setting stops a real server at start, with one line that says what to change."""

import pytest

CASES = [
    ({"imdispatcher_db_port": "abc"}, {}, "imdispatcher_db_port in odoo.conf): 'abc'"),
    ({"imdispatcher_db_port": "0"}, {}, "1 to 65535"),
    ({}, {"IMDISPATCHER_DB_PORT": "70000"}, "environment variable IMDISPATCHER_DB_PORT): '70000'"),
    (
        {"imdispatcher_db_host": "a,b", "imdispatcher_db_port": "1,2,3"},
        {},
        "3 ports (1,2,3) for 2 hosts (a,b)",
    ),
    ({"imdispatcher_db_host": "db:5432"}, {}, "imdispatcher_db_host in odoo.conf): 'db:5432'"),
    ({}, {"ODOO_IMDISPATCHER_DB_SSLMODE": "maybe"}, "ODOO_IMDISPATCHER_DB_SSLMODE): 'maybe'"),
    ({"imdispatcher_db_dsn": "host=a nonsense=1"}, {}, "unknown keyword 'nonsense'"),
    ({"imdispatcher_db_dsn": "garbage"}, {}, "imdispatcher_db_dsn in odoo.conf): cannot be parsed"),
    ({"imdispatcher_db_dsn": "service=nowhere"}, {}, 'service "nowhere" not found'),
    (
        {"imdispatcher_db_dsn": "host=a target_session_attrs=primarily"},
        {},
        'target_session_attrs value: "primarily"',
    ),
]


# every mode loads the addon through the same function: one case is enough for prefork
RUNS = [(0, *case) for case in CASES] + [(1, *CASES[0])]


@pytest.mark.parametrize("workers, options, environ, said", RUNS)
def test_server_stops(deployment, workers, options, environ, said):
    with deployment.odoo(options=options, environ=environ, workers=workers, start=False) as odoo:
        done = odoo.run(check=False, timeout=60)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "bad setting" in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert "allowed: " in lines[0]
    assert "CRITICAL" in lines[0]
    assert "Traceback" not in done.stderr
