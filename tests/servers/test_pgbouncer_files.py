"""The files in pgbouncer/, as the Docker image uses them."""

import os
import subprocess

import psycopg2
import pytest

from ..stack.pgbouncer import SHIPPED

DIFFICULT = """it's "quoted" \\ & @ODOO $HOME 50%"""


def start_image(folder, **passwords):
    """Run the image's entry point with a command that prints the user list."""
    (folder / "userlist.txt.template").write_text((SHIPPED / "userlist.txt.template").read_text())
    return subprocess.run(
        [SHIPPED / "entrypoint.sh", "sh", "-c", "cat userlist.txt; env"],
        env={"PATH": os.environ["PATH"], "PGBOUNCER_FOLDER": str(folder), **passwords},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_entrypoint_writes_the_user_list(tmp_path):
    done = start_image(tmp_path, ODOO_DB_PASSWORD=DIFFICULT, PGBOUNCER_ADMIN_PASSWORD="admin")
    assert done.returncode == 0, done.stderr
    quoted = DIFFICULT.replace('"', '""')
    assert done.stdout.startswith(f'"odoo" "{quoted}"\n"pgbouncer" "admin"\n')
    assert "PASSWORD" not in done.stdout, "not in the environment of PgBouncer"
    assert (tmp_path / "userlist.txt").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("missing", ["ODOO_DB_PASSWORD", "PGBOUNCER_ADMIN_PASSWORD"])
def test_entrypoint_wants_its_passwords(tmp_path, missing):
    passwords = {"ODOO_DB_PASSWORD": "a", "PGBOUNCER_ADMIN_PASSWORD": "b"}
    del passwords[missing]
    done = start_image(tmp_path, **passwords)
    assert done.returncode != 0
    assert f"{missing} is not set" in done.stderr


def test_pool_mode_and_limits(servers):
    config = {row["key"]: row["value"] for row in servers.pgbouncer.admin("SHOW CONFIG")}
    assert config["pool_mode"] == "transaction"
    assert config["auth_type"] == "scram-sha-256"
    assert config["max_user_connections"] == "30"


def test_a_wrong_password_is_refused(servers):
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(**servers.pooled._replace(password="no")._asdict(), dbname="postgres")
