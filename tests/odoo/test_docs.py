"""What operators paste works, and what is said twice is said alike."""

import ast
import configparser
import contextlib
import functools
import os
import pathlib
import re
import secrets
import subprocess
import sys

import docutils.core
import docutils.nodes
import docutils.utils
import psycopg2
import pytest
import requests

from bus_alt_connection.config import settings

from ..stack import series
from ..stack.guide import (
    CHECKOUT,
    IMAGE_CONF_PATH,
    PAGES,
    Block,
    Container,
    block,
    blocks,
    compose_container,
    options,
    page_blocks,
    pod_container,
    pod_spec,
    section,
)
from ..stack.nginx import Nginx
from ..stack.odoo import odoo_environ
from ..stack.pgbouncer import PgBouncer
from ..stack.postgres import SERVERS, server_environ
from ..stack.process import accepts, wait_until
from ..stack.tcp_proxy import TcpProxy

if series.NUMBER != 19:
    pytest.skip("the documentation is tried with Odoo 19.0", allow_module_level=True)

KUBERNETES = CHECKOUT / "deploy" / "kubernetes"
DOCUMENTS = [*PAGES, CHECKOUT / "CONTRIBUTING.rst", CHECKOUT / "SECURITY.rst"]

ODOO_FAULTS = "tests/odoo/test_odoo_faults.py"

# command lines, and where each is run as it stands or nearly so; "" where it needs systemd or a
# cluster to run
COMMANDS = {
    "./run test --all --odoo /path/to/odoo-16.0 tests/odoo/test_odoo_faults.py -k quick": (
        "tests/odoo/test_odoo_faults.py"
    ),
    "./run demo": ".ci/run",
    "./run test": ".ci/run",
    "./run test --odoo /path/to/odoo tests/odoo/test_contract.py": "tests/odoo/test_contract.py",
    "PYTHON=python3.12 ./run test --odoo /path/to/odoo": "tests/odoo/test_contract.py",
    "docker compose up": "tests/compose/test_compose_file.py",
    "docker build --tag odoo-with-bus_alt_connection .": "tests/compose/test_recipes.py",
    "docker build --build-arg ODOO=18.0 --build-arg SERVER_WIDE=base,web --tag"
    " odoo-with-bus_alt_connection .": "Dockerfile",
    "docker build --tag registry.example.com/odoo:19.0 .": "tests/compose/test_kubernetes.py",
    "docker build --tag registry.example.com/pgbouncer:1 pgbouncer": (
        "tests/compose/test_kubernetes.py"
    ),
    "docker run --rm --entrypoint id registry.example.com/odoo:19.0": (
        "tests/compose/test_kubernetes.py"
    ),
    "kubectl create secret generic odoo-database --from-file=odoo --from-file=console": "",
    "kubectl apply -k deploy/kubernetes": "tests/compose/test_kubernetes.py",
    "pip wheel --no-deps --wheel-dir dist .": "tests/odoo/test_packaging.py",
    "pip install dist/bus_alt_connection-*.whl": "tests/odoo/test_packaging.py",
    "pip uninstall odoo-addon-bus-alt-connection": "tests/odoo/test_packaging.py",
    "pip install --force-reinstall --no-deps dist/bus_alt_connection-*.whl": (
        "tests/odoo/test_packaging.py"
    ),
    # what is run in a container: below
    "docker compose exec odoo odoo buscheck": "tests/odoo/test_docs.py",
    "docker compose exec odoo odoo --addons-path=/mnt/extra-addons buscheck"
    " --load=base,rpc,web,bus_alt_connection": "tests/odoo/test_docs.py",
    "kubectl exec deploy/odoo -c odoo -- odoo buscheck": "tests/odoo/test_docs.py",
    "kubectl rollout status deploy/odoo": "",  # needs a cluster
    "odoo-bin --addons-path=/path/to/odoo/addons,/path/to/addons buscheck -c odoo.conf": (
        "tests/odoo/test_buscheck.py"
    ),
    "odoo-bin --addons-path=/path/to/odoo/addons,/path/to/addons buscheck -c odoo.conf -d mydb": (
        "tests/odoo/test_buscheck.py"
    ),
    "IMDISPATCHER_DB_HOST=postgres.example.com IMDISPATCHER_DB_PORT=5432"
    " odoo-bin --load=web,bus_alt_connection": "tests/odoo/test_delivery.py",
    "IMDISPATCHER_DB_HOST=postgres.example.com IMDISPATCHER_DB_PORT=5432"
    " odoo-bin --load=base,rpc,web,bus_alt_connection": "tests/odoo/test_delivery.py",
    "apt-get changelog pgbouncer | grep CVE-20": "",  # needs Debian's own server
    "./run test --all --series 19.0 tests/odoo/test_loading.py": "tests/odoo/test_loading.py",
    "./run test --all --series 19.0 tests/odoo/test_database_manager.py"
    " tests/odoo/test_delivery.py": "tests/odoo/test_delivery.py",
    "ODOO_RC=/etc/odoo/odoo.conf odoo-bin buscheck": "tests/odoo/test_packaging.py",
    # CloudNativePG's, which is not run
    "kubectl patch pooler odoo-db-pooler --type=merge"
    """ -p '{"spec": {"pgbouncer": {"paused": true}}}'""": "",
    "kubectl cnpg promote odoo-db odoo-db-2": "",
    "kubectl wait cluster/odoo-db --for=jsonpath='{.status.currentPrimary}'=odoo-db-2": "",
    "kubectl patch pooler odoo-db-pooler --type=merge"
    """ -p '{"spec": {"pgbouncer": {"paused": false}}}'""": "",
    "curl http://127.0.0.1:8072/bus_alt_connection/ready": "tests/odoo/test_ready.py",
    "odoo-bin --addons-path=/path/to/odoo/addons,/opt/addons buscheck -c /etc/odoo/odoo.conf": (
        "tests/odoo/test_buscheck.py"
    ),
    "grep -n imdispatcher /etc/odoo/odoo.conf": "tests/odoo/test_docs.py",
    "grep -n -e imdispatcher_db_dsn -e imdispatcher_keep_notify /etc/odoo/odoo.conf": (
        "tests/odoo/test_docs.py"
    ),
    "grep -n pool_mode=session /etc/pgbouncer/pgbouncer.ini": "tests/odoo/test_docs.py",
    "env | grep IMDISPATCHER": "tests/odoo/test_docs.py",
    "pip list | grep -i bus.alt.connection": "tests/odoo/test_packaging.py",
    'psql -h 127.0.0.1 -p 6432 -U pgbouncer -c "SHOW POOLS" pgbouncer': "tests/odoo/test_docs.py",
    "psql -h 127.0.0.1 -p 6432 -U pgbouncer -c RELOAD pgbouncer": "tests/odoo/test_docs.py",
    "./run test tests/odoo/test_faults.py -k stock_straight": "tests/odoo/test_faults.py",
    "./run bench killed": "benchmarks/__main__.py",
    "./run test --all --series 19.0 tests/odoo/test_odoo_faults.py -k failed_notify": ODOO_FAULTS,
    "./run test --all --series 19.0 tests/odoo/test_odoo_faults.py -k cron_thread": ODOO_FAULTS,
    "./run test --all --series 19.0 tests/odoo/test_odoo_faults.py -k standby": ODOO_FAULTS,
    "PYTHON=python3.12 ./run test --all --odoo /path/to/odoo tests/odoo/test_odoo_faults.py": (
        ODOO_FAULTS
    ),
    "./run test tests/odoo/test_outbox.py -k stock": "tests/odoo/test_outbox.py",
    './run test --all --series 19.0 tests/odoo/test_loading.py -k "lock_timeout and stock"': (
        "tests/odoo/test_loading.py"
    ),
    "BUS_ALT_REPLAY=300 ./run test --all --series 19.0 tests/odoo/test_loading.py"
    " -k locks_of_20_exclude -rP": "tests/odoo/test_loading.py",
    "odoo-bin db -c odoo.conf --db_host=postgres.example.com --db_port=5432 dump mydb mydb.zip": (
        "tests/odoo/test_database_manager.py"
    ),
    "PGHOST=postgres.example.com PGPORT=5432 odoo-bin module upgrade -c odoo.conf -d mydb sale": (
        "tests/odoo/test_loading.py"
    ),
    # as the two above it
    "odoo-bin populate -c odoo.conf -d mydb --db_host=postgres.example.com --db_port=5432": "",
    "PGHOST=postgres.example.com PGPORT=5432"
    " odoo-bin i18n loadlang -c odoo.conf -d mydb -l es_ES": "",
    "odoo-bin -c odoo.conf -d mydb --load=base,web,openupgrade_framework,bus_alt_connection"
    " -u all --stop-after-init": "",  # needs OpenUpgrade
    "click-odoo-update -c odoo-direct.conf -d mydb": "",  # needs click-odoo
    "PGHOST=postgres.example.com PGPORT=5432 click-odoo-update -c odoo.conf -d mydb": "",
    "find / -xdev -path '*/bus_alt_connection/__manifest__.py' -exec grep -H author {} +": (
        "tests/odoo/test_docs.py"
    ),
    "sudo apt-get install pgbouncer": "tests/provision.sh",  # downloads the same package
    "sudo systemctl daemon-reload": "",
    "sudo systemctl restart pgbouncer": "",
    "sudo systemctl restart odoo": "",
    # as who PgBouncer runs here has no such name
    "sudo chown postgres: /etc/pgbouncer/userlist.txt": "",
    "sudo chmod 600 /etc/pgbouncer/userlist.txt": "",
    "cp -r bus_alt_connection /opt/addons/": "tests/stack/odoo.py",
    "sudo -u odoo odoo --addons-path=/usr/lib/python3/dist-packages/odoo/addons,/opt/addons"
    " buscheck -c /etc/odoo/odoo.conf": "tests/odoo/test_buscheck.py",
}


def named(block: Block) -> str:
    return f"{block.page}-{block.line}-{block.language}"


@pytest.mark.parametrize("block", blocks(), ids=named)
def test_code_block(block, deployment, tmp_path):
    CHECKS[block.language](block.text, deployment, tmp_path)


def shell(text, _deployment, _folder):
    for line in text.splitlines():
        assert line in COMMANDS
        assert (CHECKOUT / COMMANDS[line]).exists()


def ini(text, deployment, folder):
    # PgBouncer's and systemd's files are no different to look at
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    sections = set(parser.sections())
    if sections == {"options"}:
        odoo_conf(dict(parser["options"]))
    elif sections == {"databases", "pgbouncer"}:
        pgbouncer_ini(text, deployment, folder)
    else:
        systemd_unit(text, sections, folder)


def odoo_conf(options: dict):
    ours = {name for name in options if name.startswith(settings.PREFIX)}
    for name in ours - settings.DESCRIPTIONS.keys():
        assert name.startswith(settings.DB_PREFIX) and settings.is_keyword(
            name[len(settings.DB_PREFIX) :]
        )
    assert settings.read({}, options).keys() == ours


def pgbouncer_ini(text, deployment, folder):
    # the file as it stands, but for places
    pooler = PgBouncer(
        deployment.folder / folder.name, deployment.postgres, deployment.pgbouncer.passwords
    )
    local = pooler.folder / "local.ini"
    for old, new in (
        (r"host=\S+ port=\d+", f"host={deployment.postgres.host} port={deployment.postgres.port}"),
        (r"listen_port = \d+", f"listen_port = {pooler.port}\nunix_socket_dir ="),
        ("/etc/pgbouncer", str(pooler.folder)),
    ):
        text, number = re.subn(old, new, text)
        assert number == 1
    local.write_text(text)
    pooler.start()
    try:
        path = deployment.pooled._replace(port=pooler.port)
        connection = psycopg2.connect(**path._asdict(), dbname="postgres")
        connection.cursor().execute("SELECT 1")
        connection.close()
    finally:
        pooler.stop()


def systemd_unit(text, sections, folder):
    unit = folder / "odoo.service"
    if "ExecStart" not in text:  # a part of a unit
        text += "" if "Service" in sections else "[Service]\n"
        text += "ExecStart=/bin/true\n"
    text = re.sub("ExecStart=/usr/bin/curl", "ExecStart=/bin/true", text)
    unit.write_text(text)
    root = pathlib.Path(os.environ["BUS_ALT_BROWSER"])
    libraries = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("usr/lib/*-linux-gnu*/systemd")]
    libraries += root.glob("lib/*-linux-gnu*")
    done = subprocess.run(
        [root / "usr/bin/systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
        env={**server_environ(), "LD_LIBRARY_PATH": ":".join(map(str, libraries))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    about_it = [line for line in done.stdout.splitlines() if str(unit) in line]
    assert about_it == [] and done.returncode == 0, done.stdout


def yaml_(text, _deployment, folder):
    import yaml  # not there for the series that skip this module

    documents = list(yaml.safe_load_all(text))
    if "scope" in documents[0]:
        return  # Patroni's: tests/cluster.py runs it
    if documents[0].get("apiVersion") == CLOUDNATIVEPG:
        for one in documents:
            assert one.keys() == {"apiVersion", "kind", "metadata", "spec"}
            assert one["apiVersion"] == CLOUDNATIVEPG
            assert_fits(one["spec"], CLOUDNATIVEPG_SPECS[one["kind"]])
        return
    if "healthcheck" in documents[0]:
        documents = [{"services": {"odoo": {"image": "odoo:19.0", **documents[0]}}}]
    written = folder / "document.yaml"
    written.write_text(yaml.safe_dump_all(documents))
    if "services" in documents[0]:
        tool = ("check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    else:
        tool = ("kubernetes_validate", "--strict")
    done = subprocess.run(
        [sys.executable, "-m", *tool, written],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", sorted(KUBERNETES.glob("*.yaml")), ids=lambda file: file.name)
def test_kubernetes_file(file, tmp_path):
    import yaml

    text = file.read_text()
    for document in yaml.safe_load_all(text):
        if document["kind"] == "Kustomization":
            names = [*document["resources"], *document["configMapGenerator"][0]["files"]]
            assert all((KUBERNETES / name).exists() for name in names)
        elif document["kind"] == "PodMonitor":
            assert_fits(document["spec"], POD_MONITOR)
        else:
            yaml_(yaml.safe_dump(document), None, tmp_path)


def test_pgbouncer_of_kubernetes_is_set_as_elsewhere():
    ours, theirs = (
        path.read_text()
        for path in (CHECKOUT / "pgbouncer/pgbouncer.ini", KUBERNETES / "pgbouncer.ini")
    )
    assert ours.replace("host=postgres ", "host=postgres.databases.svc ") == theirs


# of what this kind may have, what the file uses
POD_MONITOR = {
    "selector": {"matchLabels": {"app": str}},
    "podMetricsEndpoints": list,
}

CLOUDNATIVEPG = "postgresql.cnpg.io/v1"
# of what its two kinds may have, what the recipe uses
CLOUDNATIVEPG_SPECS = {
    "Cluster": {
        "instances": int,
        "storage": {"size": str},
        "postgresql": {"synchronous": {"method": ("any", "first"), "number": int}},
        "bootstrap": {"initdb": {"database": str, "owner": str, "secret": {"name": str}}},
    },
    "Pooler": {
        "cluster": {"name": str},
        "type": ("rw", "ro", "r"),
        "instances": int,
        "pgbouncer": {
            "poolMode": ("session", "transaction"),
            "paused": bool,
            # handed to PgBouncer as they are, all of them as text
            "parameters": {
                "max_client_conn": str,
                "default_pool_size": str,
                "max_user_connections": str,
                "server_login_retry": str,
            },
        },
    },
}


def assert_fits(value, kind):
    """Fail where a value is not of this kind: a type, a choice, or a dictionary of kinds."""
    if isinstance(kind, dict):
        assert value.keys() <= kind.keys()
        for name, inner in value.items():
            assert_fits(inner, kind[name])
    elif isinstance(kind, tuple):
        assert value in kind
    else:
        assert isinstance(value, kind)


def test_the_recipes_for_clusters_agree_with_themselves():
    """HAProxy, Patroni and the listener have the same members, and names lead to each other."""
    import yaml

    patroni, haproxy, pgbouncer, conf = page_blocks("docs/patroni.rst")
    hosts = options(conf.text)["imdispatcher_db_host"].split(",")
    port = options(conf.text)["imdispatcher_db_port"]
    servers = re.findall(r"^ *server \S+ (\S+)$", haproxy.text, re.M)
    assert servers == [f"{host}:{port}" for host in hosts]
    assert yaml.safe_load(patroni.text)["postgresql"]["connect_address"] in servers
    (bind,) = re.findall(r"bind (\S+)", haproxy.text)
    assert pgbouncer.text.strip() == "* = host={} port={}".format(*bind.split(":"))

    recipe, conf, _commands = page_blocks("docs/cloudnativepg.rst")
    cluster, pooler = yaml.safe_load_all(recipe.text)
    assert pooler["spec"]["cluster"]["name"] == cluster["metadata"]["name"]
    assert options(conf.text)["db_host"] == pooler["metadata"]["name"]
    assert options(conf.text)["imdispatcher_db_host"] == cluster["metadata"]["name"] + "-rw"


def haproxy(text, _deployment, _folder):
    # a listener behind it hears a probe every 10 s, or something else
    minutes = re.findall(r"timeout (?:client|server) (\d+)m$", text, re.M)
    assert len(minutes) == 2 and "mode tcp" in text


VARIABLES = {"ODOO_DB_PASSWORD": "of the test", "PGBOUNCER_ADMIN_PASSWORD": "admin's"}


def guides_docker() -> tuple:
    recipe, conf, check, *_others = page_blocks("docs/docker.rst")
    return compose_container(recipe.text, "odoo", VARIABLES)._replace(conf=conf.text), check.text


def projects_docker(service: str = "odoo") -> tuple:
    text = (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")
    commands = "".join(block.text for block in section("docs/operations.rst", "Does it work?"))
    (check,) = re.findall(r"^docker compose exec .*\n", commands, re.M)
    return compose_container(text, service, VARIABLES), check


def guides_kubernetes() -> tuple:
    commands = "".join(one.text for one in page_blocks("docs/kubernetes.rst"))
    files = [(KUBERNETES / name).read_text() for name in ("deployment.yaml", "odoo.conf")]
    return pod_container(files[0], "odoo", files[1], VARIABLES["ODOO_DB_PASSWORD"]), commands


RECIPES = {
    "guide's Docker": guides_docker,
    "project's Docker": projects_docker,
    "project's Docker, reports": functools.partial(projects_docker, "odoo-reports"),
    "guide's Kubernetes": guides_kubernetes,
}


def placed(deployment, odoo, container: Container) -> dict:
    """Write odoo.conf of a container for this machine and return its environment."""
    pooled, straight = deployment.pooled, deployment.direct
    places = {
        "pgbouncer": pooled.host,
        "pgbouncer-reports": pooled.host,
        "6432": str(pooled.port),
        "postgres": straight.host,
        "postgres.databases.svc": straight.host,
        "5432": str(straight.port),
        VARIABLES["ODOO_DB_PASSWORD"]: deployment.password,
        "the password of the role odoo": deployment.password,
        "/mnt/extra-addons": str(CHECKOUT),
        "/var/lib/odoo": str(odoo.data_dir),
        IMAGE_CONF_PATH: str(odoo.conf),
    }
    there = container.at(places)
    odoo.conf.write_text(there.conf)
    # the official image says where its odoo.conf is
    return odoo_environ({"ODOO_RC": str(odoo.conf), **there.environ})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_for_containers_passes_its_own_check(recipe, deployment):
    container, commands = RECIPES[recipe]()
    assert container.argv[0] == "odoo", "the image's start script would show the password"
    exec_ = r"^(?:docker compose exec odoo|kubectl exec deploy/odoo -c odoo --) odoo (.*)$"
    (check,) = re.findall(exec_, commands, re.M)
    with deployment.odoo(start=False) as odoo:
        environ = placed(deployment, odoo, container)
        program = [odoo.python, os.environ["BUS_ALT_ODOO"]]
        check = check.replace("/mnt/extra-addons", str(CHECKOUT)).split()
        done = subprocess.run(
            [*program, *check],
            env=environ,
            cwd=odoo.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.splitlines()[-1:] == ["Notifications arrive."], done.stdout + done.stderr
        assert done.returncode == 0
        if recipe.startswith("guide's"):
            # the server that it starts listens, too; where it serves is the test's
            serves = [
                f"--http-port={odoo.port}",
                f"--gevent-port={odoo.gevent_port}",
                "--http-interface=127.0.0.1",
            ]
            odoo.workers = "workers" in container.conf  # then the gevent port is the one
            odoo.process.start(
                [*program, *container.argv[1:], *serves], env=environ, cwd=odoo.folder
            )
            odoo.process.wait_for(lambda: accepts(odoo.bus_port), "the port answers")
            odoo.process.wait_for(lambda: odoo.ready().status_code == 200, "ready")
            assert odoo.ready().json()["listeners"][0]["state"] == "listening"


def test_losing_chat_does_not_lose_the_pages(deployment):
    """The probes of the guide's pod, while PostgreSQL can be reached through the pooler alone."""
    spec = pod_spec((KUBERNETES / "deployment.yaml").read_text(), "odoo")
    relay = TcpProxy((deployment.postgres.host, deployment.postgres.port))
    direct = {**deployment.direct_settings, "imdispatcher_db_port": relay.port}
    with deployment.odoo(workers=2, options=direct) as odoo:
        ports = {8069: odoo.port, 8072: odoo.gevent_port, "http": odoo.port}
        wait_until(lambda: odoo.ready().status_code == 200, "ready")
        assert starts(spec, odoo)

        relay.close()
        wait_until(lambda: odoo.ready().status_code == 503, "not ready")
        probe = spec["readinessProbe"]["httpGet"]
        pages = f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}"
        assert requests.get(pages, timeout=10).status_code == 200
        # a pod that begins now comes too
        assert not starts(spec, odoo)
        wait_until(lambda: starts(spec, odoo, seconds="2"), "the probe gives up waiting")
        probe = spec["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] > 2 * 120, "it would be killed"
        assert "livenessProbe" not in spec


def starts(spec: dict, odoo, seconds: str = "120") -> bool:
    """Run the start-up probe once.

    :param seconds: the age of Odoo at which it goes on without chat
    """
    shell_, option, line = spec["startupProbe"]["exec"]["command"]
    for old, new in (
        ("8072", str(odoo.gevent_port)),
        ("/proc/1/", f"/proc/{odoo.process.pid}/"),
        ("120", seconds),
    ):
        assert old in line
        line = line.replace(old, new)
    return subprocess.run([shell_, option, line], capture_output=True).returncode == 0


def test_no_recipe_makes_pages_depend_on_chat():
    import yaml

    def probes(node):
        for name, inner in node.items() if isinstance(node, dict) else enumerate(node):
            if name in ("readinessProbe", "livenessProbe"):
                yield str(inner)
            elif isinstance(inner, (dict, list)):
                yield from probes(inner)

    recipes = [found.text for found in blocks() if found.language == "yaml"]
    recipes += [file.read_text() for file in KUBERNETES.glob("*.yaml")]
    asked = [probe for recipe in recipes for probe in probes([*yaml.safe_load_all(recipe)])]
    assert asked and not [probe for probe in asked if "/bus_alt_connection" in probe]


def sql(text, deployment, _folder):
    try:
        for statement in text.split(";\n"):  # CREATE DATABASE has to be alone
            if statement.strip():
                deployment.postgres.execute(statement)
    finally:
        deployment.postgres.execute("DROP DATABASE IF EXISTS bus")


def nginx(text, _deployment, folder):
    conf = folder / "nginx.conf"
    text = re.sub(r"listen 80(80)?;", "listen 127.0.0.1:8080;", text)
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    if "http {" in text:  # a whole file
        conf.write_text(text.replace("/tmp/", f"{folder}/"))
    else:
        conf.write_text(
            f"pid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}{text}}}\n"
        )
    program = pathlib.Path(os.environ["BUS_ALT_BROWSER"]) / "usr/sbin/nginx"
    done = subprocess.run(
        [program, "-t", "-c", conf, "-p", folder, "-e", "stderr"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_two_lines_of_the_first_page_are_enough(deployment):
    (conf,) = (one for one in page_blocks("README.rst") if one.language == "ini")
    lines = options(conf.text)
    assert lines.keys() == {"server_wide_modules", "imdispatcher_db_host"}
    assert lines["server_wide_modules"].endswith(",bus_alt_connection")
    with deployment.odoo(options={"imdispatcher_db_host": lines["imdispatcher_db_host"]}) as odoo:
        wait_until(lambda: odoo.ready().status_code == 200, "ready")
        there = f"listening at {deployment.direct.host}:{deployment.direct.port},"
        wait_until(lambda: there in odoo.log(), there)


def test_another_system_database_keeps_other_tenants_out(deployment):
    """A role that may connect can listen to what all others are told."""
    create, take_away, give = block("sql", "CREATE DATABASE bus").strip().split("\n")
    postgres, password = deployment.postgres, secrets.token_hex(8)
    postgres.create_role("tenant", password, "")

    def listens(role: str, of: str) -> bool:
        path = {**deployment.direct._asdict(), "user": role, "password": of, "dbname": "bus"}
        try:
            with contextlib.closing(psycopg2.connect(**path)) as connection:
                connection.cursor().execute("LISTEN imbus")
        except psycopg2.OperationalError as error:
            assert "permission denied for database" in str(error)
            return False
        return True

    try:
        postgres.execute(create)
        assert listens("tenant", password)  # what PostgreSQL lets everybody do
        postgres.execute(take_away)
        postgres.execute(give)
        assert not listens("tenant", password)
        assert listens("odoo", deployment.password)
    finally:
        postgres.execute("DROP DATABASE IF EXISTS bus")
        postgres.execute("DROP ROLE tenant")


def test_nginx_asks_the_process_that_has_the_websockets(prefork, tmp_path):
    """A monitor outside learns whether notifications arrive; strangers learn nothing."""
    wait_until(lambda: prefork.odoo.ready().status_code == 200, "ready")
    for monitor, status in (("127.0.0.1", 200), ("192.0.2.1", 403)):
        server = Nginx(tmp_path / monitor, prefork.odoo)
        conf = server.conf.read_text()
        assert "allow 127.0.0.1;" in conf
        server.conf.write_text(conf.replace("allow 127.0.0.1;", f"allow {monitor};"))
        server.start()
        try:
            answer = requests.get(f"{server.url}/bus_alt_connection/ready", timeout=10)
            metrics = requests.get(f"{server.url}/bus_alt_connection/metrics", timeout=10)
        finally:
            server.stop()
        assert (answer.status_code, metrics.status_code) == (status, 404)
        if status == 200:  # an HTTP worker would say so too, but without a listener
            assert "imbus" in [one["channel"] for one in answer.json()["listeners"]]


def output(_text, _deployment, _folder):
    """What a program prints: nothing to run."""


CHECKS = {
    "shell": shell,
    "ini": ini,
    "yaml": yaml_,
    "sql": sql,
    "nginx": nginx,
    "haproxy": haproxy,
    "text": output,
}


def test_each_command_that_loads_no_addon_is_named():
    """Those of this Odoo that open a database, and start no server, which loads addons."""
    opens = re.compile(r"Registry(\.new)?\(|\b(db_connect|count_database|dump_db)\(")
    sources = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (pathlib.Path(os.environ["BUS_ALT_ODOO_PATH"]) / "odoo" / "cli").glob("*.py")
    }
    names = {name for name, text in sources.items() if opens.search(text)}
    names = {name for name in names if "server.start(" not in sources[name]}
    assert {"db", "module"} < names
    page = (CHECKOUT / "docs" / "updates-and-backups.rst").read_text(encoding="utf-8")
    assert {name for name in names if not re.search(rf"``{name}\b", page)} == set()


def test_the_author_tells_which_addon_it_is():
    commands = "".join(
        one.text for one in section("docs/install.rst", "Which bus_alt_connection runs")
    )
    (command,) = re.findall(r"^find / .*$", commands, re.M)
    here = command.replace("find / ", f"find {CHECKOUT} ")
    assert here != command
    said = subprocess.run(here, shell=True, capture_output=True, text=True, check=True).stdout
    author = "bus_alt_connection contributors"
    assert author in said and f"``{author}``" in (CHECKOUT / "docs" / "install.rst").read_text()


# what each of these has to show, of the files and the environment below
LOOKS = {
    "grep -n imdispatcher /etc/odoo/odoo.conf": "imdispatcher_db_dsn",
    "grep -n -e imdispatcher_db_dsn -e imdispatcher_keep_notify /etc/odoo/odoo.conf": "_db_dsn",
    "grep -n pool_mode=session /etc/pgbouncer/pgbouncer.ini": "postgres = ",
    "env | grep IMDISPATCHER": "IMDISPATCHER_DB_HOST",
    'psql -h 127.0.0.1 -p 6432 -U pgbouncer -c "SHOW POOLS" pgbouncer': "cl_waiting",
    "psql -h 127.0.0.1 -p 6432 -U pgbouncer -c RELOAD pgbouncer": "RELOAD",
}


@pytest.mark.parametrize("command", LOOKS)
def test_where_one_looks_before_a_change(command, deployment, tmp_path):
    assert command in (CHECKOUT / "docs" / "coming-from.rst").read_text(encoding="utf-8")
    (tmp_path / "odoo.conf").write_text("imdispatcher_db_dsn = sslmode=require\n")
    (tmp_path / "pgbouncer.ini").write_text("postgres = host=a port=5432 pool_mode=session\n")
    here = command.replace("6432", str(deployment.pgbouncer.port))
    for folder in ("/etc/odoo", "/etc/pgbouncer"):
        here = here.replace(folder, str(tmp_path))
    environ = {
        "PATH": f"{SERVERS / 'tools'}:{os.environ['PATH']}",
        "PGPASSWORD": deployment.pgbouncer.admin_password,
        "IMDISPATCHER_DB_HOST": "postgres.example.com",
    }
    said = subprocess.run(here, shell=True, env=environ, capture_output=True, text=True, timeout=60)
    assert LOOKS[command] in said.stdout, said


def test_what_is_made_is_as_it_would_be_made():
    from docs import make

    for path, text in make.made().items():
        assert path.read_text(encoding="utf-8") == text, "run ./run docs"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_page_is_well_formed(page):
    docutils.core.publish_doctree(
        page.read_text(encoding="utf-8"),
        source_path=str(page),
        settings_overrides={
            "halt_level": docutils.utils.Reporter.WARNING_LEVEL,
            "report_level": docutils.utils.Reporter.WARNING_LEVEL,
            "syntax_highlight": "none",
        },
    )


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"<([^<>\s:]+\.(?:rst|md)(?:#[^<>\s]*)?)>`__", text)
    targets += re.findall(r"\.\. image:: (\S+)", text)
    for target in targets:
        path, _mark, anchor = target.partition("#")
        other = page.parent / path
        assert other.exists(), target
        if anchor:
            doctree = docutils.core.publish_doctree(
                other.read_text(encoding="utf-8"), settings_overrides={"syntax_highlight": "none"}
            )
            assert anchor in doctree.ids, target


def test_files_that_are_named_exist():
    for page in DOCUMENTS:
        for name in re.findall(
            r"``((?:tests|pgbouncer|benchmarks|docs)/[\w./-]+)``", page.read_text(encoding="utf-8")
        ):
            assert (CHECKOUT / name).exists(), f"{page.name}: {name}"


# --- what a page is like ------------------------------------------------------------------


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_a_page_is_short_and_ends_with_where_to_go_next(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= (200 if page.name == "README.rst" else 300)
    text = re.split(r"(?m)^\.\. begin: figures", page.read_text(encoding="utf-8"))[0]
    last = text.strip().split("\n\n")[-1]
    assert re.search(r"<[^<>]+>`__", last), "no link in the last paragraph"
    assert page.name == "README.rst" or last.startswith("Next: ")


def test_each_page_is_in_the_table_of_contents():
    index = (CHECKOUT / "docs" / "index.rst").read_text(encoding="utf-8")
    missing = [page.name for page in DOCUMENTS if not re.search(rf"\b{page.stem}\b", index)]
    assert missing == []


ADDON = CHECKOUT / "bus_alt_connection"

# parts of a line that has an entry itself, and what is no line
NO_LINES = (
    "each keyword of libpq is a setting",
    "see libpq's keywords",
    "odoo.conf and Odoo's own db_* settings",
    "Odoo's own or the addon's default",
    "not caught up yet",  # at level debug
    "who missed something is not known",  # the same
    "did you mean ",
    "the same as db_system",
    "what libpq takes",
    "cannot be imported",
    "host names, IP addresses or socket folders",
    "Set imdispatcher_db_host = auto",  # advice
    "Check the name of the database",  # advice
    'database "…" does not exist',  # PostgreSQL's
    "close the session: it does not receive",
    "not both a row and a replacement",
    " has no function ",
)


def said_by(source: str) -> set:
    """Return the sentences of a module that an operator may see, ``…`` where something varies.

    These are what it logs, its constants, and its strings with something filled in. Dictionaries
    hold advice, and what the documentation says of settings.
    """
    found = ((_sentence(node), enough) for node, enough in _texts(ast.parse(source)))
    word = r"(?<![\w/.])[A-Za-z_']{2,}(?![\w/])"
    return {text for text, enough in found if len(re.findall(word, text)) >= enough}


def _texts(node):
    """Yield what may be a sentence, and how many words it then has."""
    if isinstance(node, ast.Assign):
        # what to do stands beside what is said
        if not re.search("advice", ast.unparse(node.targets[0]), re.I):
            yield node.value, 4
    elif isinstance(node, ast.JoinedStr):
        yield node, 3
    elif isinstance(node, ast.Call) and re.search(r"_logger\.", ast.unparse(node.func)):
        yield from ((one, 1) for one in node.args[:2])
    elif isinstance(node, ast.Call) and re.search("append", ast.unparse(node.func)):
        yield from ((one, 3) for one in node.args)
    if not isinstance(node, (ast.Dict, ast.JoinedStr)):
        for inner in ast.iter_child_nodes(node):
            yield from _texts(inner)


def _sentence(node) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in parts)
    text = re.sub(r"%[-.\d]*[sdrf]|\{[^{}]*\}", "…", text)
    return "" if "\\" in text or re.match(r"\s|SELECT |SET |BEGIN|text/|[^ ]+$", text) else text


def lines_of_the_addon() -> set:
    found = set()
    for module in ADDON.rglob("*.py"):
        if "tests" not in module.relative_to(ADDON).parts and module.name != "__manifest__.py":
            found |= said_by(module.read_text(encoding="utf-8"))
    return {line for line in found if not any(part in line for part in NO_LINES)}


def test_each_line_of_the_addon_has_its_anchor():
    page = (CHECKOUT / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
    doctree = docutils.core.publish_doctree(page, settings_overrides={"syntax_highlight": "none"})
    entries = {
        node.astext(): node["ids"]
        for node in doctree.findall(docutils.nodes.target)
        if node.astext()
    }
    assert entries and all(entries.values())
    lines = lines_of_the_addon()
    assert any(line.startswith("NOTIFY cannot be sent") for line in lines)
    without = {line for line in lines if not any(entry in line for entry in entries)}
    assert without == set(), "write an entry into docs/troubleshooting.rst"
    of_nothing = {entry for entry in entries if not any(entry in line for line in lines)}
    assert of_nothing == set(), "the addon does not say this any more"


def test_the_words_of_the_pages():
    """One name for one thing."""
    usual = {
        r"\bstraight to\b": "directly",
        r"\bsession alias\b|\bthe alias\b": "session entry",
        r"\b(existing addon|stock Odoo)\b": "OCA addon, plain Odoo",
        r"\b(nobody|somebody|whoever)\b": "servers are not persons",
        r"(?m)(^|[.:;] )[Ee]lse\b": "Otherwise",
        r"\ball the same\b": "nevertheless",
    }
    for page in DOCUMENTS:
        if page.name != "how-it-works.rst":
            text = page.read_text(encoding="utf-8")
            text = re.sub(r"(?s)\.\. begin: .*?\.\. end: ", "", text)  # made from code
            wrong = [word for word in usual if re.search(word, text)]
            assert wrong == [], f"{page.name}: say {[usual[word] for word in wrong]}"
