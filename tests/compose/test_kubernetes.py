"""deploy/kubernetes: what kustomize makes of it, and its pod, run with Docker."""

from __future__ import annotations

import json
import time

import pytest
import requests

from ..stack.process import wait_until
from ..stack.tcp_proxy import TcpProxy
from ..stack.users import BackgroundThreads
from .checks import SECRETS, deliver
from .pod import KILLED, Pod
from .project import Project, Site, with_database
from .test_recipes import recipes

IMAGES = {"registry.example.com/odoo:19.0": ".", "registry.example.com/pgbouncer:1": "pgbouncer"}
SECRET = {"odoo": SECRETS["ODOO_DB_PASSWORD"], "console": SECRETS["PGBOUNCER_ADMIN_PASSWORD"]}
POSTGRES = "postgres.databases.svc"
ROLLOUT = 30  # s, for the pod that ends


class Cluster:
    """What stands for a cluster: PostgreSQL under its name there, and the kustomization."""

    def __init__(self, project: Project):
        import yaml

        self.project = project
        folder = project.folder / "deploy" / "kubernetes"
        text = project.engine.run("kustomize", "build", folder)
        self.documents = list(yaml.safe_load_all(text))
        self.maps = {one["metadata"]["name"]: one["data"] for one in self.of_kind("ConfigMap")}
        (deployment,) = self.of_kind("Deployment")
        self.spec = deployment["spec"]["template"]["spec"]
        self.network = project.networks("postgres")[0]
        self.pods: list[Pod] = []

    def of_kind(self, kind: str) -> list[dict]:
        return [one for one in self.documents if one["kind"] == kind]

    def pod(self, maps: dict | None = None) -> Pod:
        volume = f"{self.project.name}_odoo"
        where = (maps or self.maps, SECRET, self.network, volume)
        pod = Pod(self.project.engine, self.spec, *where)
        self.pods.append(pod)
        return pod.start()

    def gateway(self) -> str:
        """Return the address under which containers reach this program."""
        template = "--format={{json .IPAM.Config}}"
        told = self.project.engine.docker("network", "inspect", template, self.network).stdout
        return json.loads(told)[0]["Gateway"]


@pytest.fixture(scope="module")
def cluster(engine):
    import yaml

    files = recipes()["beside"]
    whole = yaml.safe_load(files["docker-compose.yml"])
    whole["services"]["postgres"]["networks"] = {"default": {"aliases": [POSTGRES]}}
    files["docker-compose.yml"] = yaml.safe_dump(whole)
    project = Project(engine, "kubernetes", SECRETS, files=files)
    for tag, folder in IMAGES.items():
        engine.build(tag, project.folder / folder)
    with project.running("postgres", before=with_database, keep_volumes=True):
        cluster = Cluster(project)
        try:
            yield cluster
        finally:
            for pod in cluster.pods:
                pod.remove()
            project.compose("rm", "--force", "--stop", "odoo", "pgbouncer", check=False)


@pytest.fixture(scope="module")
def pod(cluster):
    return cluster.pod().wait_until_ready()


def odoo_of(pod: Pod) -> dict:
    return {"container": f"{pod.name}-odoo", "network": f"container:{pod.name}"}


def test_what_the_kustomization_names_is_there(cluster):
    containers = [*cluster.spec["initContainers"], *cluster.spec["containers"]]
    (job,) = cluster.of_kind("CronJob")
    containers += job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert {container["image"] for container in containers} == IMAGES.keys()
    named = {row["configMap"]["name"] for row in cluster.spec["volumes"] if "configMap" in row}
    assert named == cluster.maps.keys()
    uid = cluster.project.engine.docker(
        *("run", "--rm", "--entrypoint", "id", "registry.example.com/odoo:19.0", "-u")
    ).stdout
    assert int(uid) == cluster.spec["securityContext"]["runAsUser"]


def test_its_own_check(pod):
    done = pod.exec("odoo", "odoo", "buscheck")
    assert done.stdout.splitlines()[-1:] == ["Notifications arrive."], done.stdout + done.stderr


def test_50_of_50_live(cluster, pod):
    site = Service(pod)
    assert deliver(cluster.project, site=site.site, **odoo_of(pod)) == 50


def test_no_password_is_shown(pod):
    shown = pod.log("odoo") + pod.log("pgbouncer") + pod.engine.command_lines()
    assert not [secret for secret in SECRET.values() if secret in shown]


class Service:
    """The Service ``odoo``: two ports of this machine that lead to a pod."""

    def __init__(self, pod: Pod):
        address = pod.address
        self.http, self.websocket = (TcpProxy((address, port)) for port in (8069, 8072))
        self.site = Site(f"http://127.0.0.1:{self.http.port}", self.websocket.port)

    def lead_to(self, pod: Pod):
        for proxy in (self.http, self.websocket):
            proxy.target = (pod.address, proxy.target[1])


def test_losing_chat_does_not_lose_the_pages(cluster, pod):
    """PostgreSQL can be reached through the pooler alone: the pod stays, and a new one comes."""
    relay = TcpProxy((address_of(cluster, "postgres"), 5432), cluster.gateway())
    direct = f"imdispatcher_db_host = {relay.host}\nimdispatcher_db_port = {relay.port}\n"
    maps = {
        name: {
            file: text.replace(
                f"imdispatcher_db_host = {POSTGRES}\nimdispatcher_db_port = 5432\n", direct
            )
            for file, text in files.items()
        }
        for name, files in cluster.maps.items()
    }
    second = cluster.pod(maps).wait_until_ready()
    job = run_job(cluster)
    assert job.returncode == 0, job.stderr + job.stdout
    ready = f"http://{second.address}:8072/bus_alt_connection/ready"
    relay.close()
    wait_until(lambda: requests.get(ready, timeout=10).status_code == 503, "not ready")
    assert second.is_ready()
    assert run_job(cluster).returncode != 0

    (spec,) = second.spec["containers"]
    shell, option, line = spec["startupProbe"]["exec"]["command"]
    assert "120" in line
    young, old = (line.replace("120", seconds) for seconds in ("100000", "2"))
    assert second.exec("odoo", shell, option, young).returncode != 0
    assert second.exec("odoo", shell, option, old).returncode == 0
    relay.open()
    wait_until(lambda: requests.get(ready, timeout=10).ok, "ready")
    second.remove()
    cluster.pods.remove(second)


def address_of(cluster: Cluster, service: str) -> str:
    networks = cluster.project.inspect(service)["NetworkSettings"]["Networks"].values()
    return next(network["IPAddress"] for network in networks)


def run_job(cluster: Cluster):
    """Run the alert's job once."""
    (job,) = cluster.of_kind("CronJob")
    (spec,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    program, *arguments = spec["command"]
    return cluster.project.engine.docker(
        *("run", "--rm", f"--network={cluster.network}", "--read-only", "--cap-drop=ALL"),
        *(f"--entrypoint={program}", spec["image"], *arguments),
        check=False,
    )


class Visitors(BackgroundThreads):
    """Four visitors request pages of a Service over and over, as a context."""

    def __init__(self, url: str):
        self.asked = 0
        self.failed: list[str] = []
        self._url = f"{url}/web/login"
        super().__init__(*[self._visit] * 4)

    def _visit(self):
        while not self._stop.wait(0.05):
            failure = ""
            try:
                answer = requests.get(self._url, timeout=30)
                failure = "" if answer.ok else str(answer.status_code)
            except requests.RequestException as error:
                failure = str(error)
            with self._lock:
                self.asked += 1
                if failure:
                    self.failed.append(failure)


def test_a_rollout_fails_no_request(cluster, pod):
    service = Service(pod)
    with Visitors(service.site.url) as visitors:
        time.sleep(2)
        second = cluster.pod().wait_until_ready()
        service.lead_to(second)
        took = pod.delete()
        time.sleep(2)
    cluster.pods.remove(pod)
    print(f"{visitors.asked} requests, {len(visitors.failed)} failed; ended in {took:.1f} s")
    assert visitors.asked > 50 and visitors.failed == []
    assert KILLED not in pod.codes.values() and took < ROLLOUT
    assert deliver(cluster.project, site=service.site, **odoo_of(second)) == 50
