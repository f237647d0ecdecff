"""A bad setting stops a real server at start, with one line; tests/unit has all of them."""

import pytest

CASES = [
    (0, {"imdispatcher_db_port": "abc"}, {}, "imdispatcher_db_port in odoo.conf): 'abc'"),
    (1, {}, {"IMDISPATCHER_DB_PORT": "70000"}, "variable IMDISPATCHER_DB_PORT): '70000'"),
    (0, {"imdispatcher_db_sslrootcrt": "x"}, {}, "did you mean imdispatcher_db_sslrootcert?"),
]


@pytest.mark.parametrize("workers, options, environ, said", CASES)
def test_server_stops(deployment, workers, options, environ, said):
    with deployment.odoo(options=options, environ=environ, workers=workers, start=False) as odoo:
        done = odoo.run(check=False, timeout=60)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if " CRITICAL " in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in done.stderr
