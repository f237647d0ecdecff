"""A pod of a Deployment, run with Docker as a kubelet would run it.

Its containers share a network namespace. Users, groups, file systems, capabilities, variables,
probes, ``preStop`` and signals are those of the manifest. What a container starts with: its config
maps as files, its emptyDirs, its claim as a volume.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import shutil
import subprocess
import threading
import time

import requests

from ..stack.process import accepts, wait_until
from .engine import Engine

KILLED = 137

_numbers = itertools.count(1)


class Pod:
    """One pod.

    :param spec: of the pod, as the Deployment's template has it
    :param maps: the files of each config map, by its name
    :param secret: the secret's values by their keys
    :param network: the network of Docker that stands for the cluster's
    :param claim: the volume that the claim has
    """

    def __init__(
        self, engine: Engine, spec: dict, maps: dict, secret: dict, network: str, claim: str
    ):
        self.engine, self.spec, self.maps, self.secret = engine, spec, maps, secret
        self.name = f"pod-{next(_numbers)}"
        self.folder = engine.folder / self.name
        self.network, self.claim = network, claim
        self.codes: dict[str, int] = {}
        self.restarts: list[str] = []
        self._volumes = {row["name"]: self._volume(row) for row in spec["volumes"]}

    def _volume(self, row: dict) -> pathlib.Path | str:
        path = self.folder / row["name"]
        if "persistentVolumeClaim" in row:
            return self.claim
        path.mkdir(parents=True)
        if "configMap" in row:
            for name, text in self.maps[row["configMap"]["name"]].items():
                (path / name).write_text(text)
        else:
            # as the kubelet makes an emptyDir: anybody may write, files belong to fsGroup
            shutil.chown(path, 0, self.spec["securityContext"]["fsGroup"])
            path.chmod(0o2777)
        return path

    def container(self, spec: dict) -> str:
        return f"{self.name}-{spec['name']}"

    @property
    def sidecars(self) -> list[dict]:
        found = self.spec["initContainers"]
        assert all(spec["restartPolicy"] == "Always" for spec in found)
        return found

    @property
    def address(self) -> str:
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.engine.docker("inspect", f"--format={template}", self.name).stdout.strip()

    def start(self):
        """Make the pod's network and start its containers, each once the one before has started."""
        image = self.sidecars[0]["image"]
        network = (f"--network={self.network}", "--network-alias=odoo-pods")
        sandbox = ("run", "--detach", f"--name={self.name}", *network, "--entrypoint=sleep")
        self.engine.docker(*sandbox, image, "infinity")
        for spec in (*self.sidecars, *self.spec["containers"]):
            self._run(spec)
            if spec in self.sidecars:
                self.wait_for_startup(spec)
        return self

    def _run(self, spec: dict):
        whole = self.spec["securityContext"]
        own = spec["securityContext"]
        assert whole["runAsNonRoot"] and own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        environ = {row["name"]: self._value(row) for row in spec.get("env", [])}
        memory = spec["resources"]["limits"]["memory"].replace("Gi", "g").replace("Mi", "m")
        mounts = [
            f"--volume={self._volumes[mount['name']]}:{mount['mountPath']}"
            + (":ro" if mount.get("readOnly") else "")
            for mount in spec["volumeMounts"]
        ]
        assert "command" not in spec
        self.engine.docker(
            *("run", "--detach", f"--name={self.container(spec)}"),
            f"--network=container:{self.name}",
            f"--user={whole['runAsUser']}:{whole['runAsGroup']}",
            f"--group-add={whole['fsGroup']}",
            *("--read-only", "--security-opt=no-new-privileges", "--cap-drop=ALL"),
            *(f"--cap-drop={name}" for name in own["capabilities"]["drop"] if name != "ALL"),
            f"--memory={memory}",
            *(f"--env={name}" for name in environ),
            *mounts,
            spec["image"],
            *spec.get("args", []),
            environ=environ,
        )

    def _value(self, row: dict) -> str:
        if "value" in row:
            return row["value"]
        reference = row["valueFrom"]["secretKeyRef"]
        assert reference["name"] == "odoo-database"
        return self.secret[reference["key"]]

    def exec(self, name: str, *command) -> subprocess.CompletedProcess:
        return self.engine.docker("exec", f"{self.name}-{name}", *command, check=False)

    def probe(self, spec: dict, probe: dict) -> bool:
        """Run a probe once, as the kubelet does, and return its result."""
        ports = {port["name"]: port["containerPort"] for port in spec.get("ports", [])}
        if "exec" in probe:
            return self.exec(spec["name"], *probe["exec"]["command"]).returncode == 0
        if "tcpSocket" in probe:
            return accepts(probe["tcpSocket"]["port"], self.address)
        get = probe["httpGet"]
        with contextlib.suppress(requests.RequestException):
            url = f"http://{self.address}:{ports[get['port']]}{get['path']}"
            seconds = probe.get("timeoutSeconds", 1)
            return 200 <= requests.get(url, timeout=seconds).status_code < 400
        return False

    def wait_for_startup(self, spec: dict) -> float:
        """Run the startup probe at its period until it succeeds; return after how long (s)."""
        probe, begin = spec["startupProbe"], time.monotonic()
        for _try in range(probe["failureThreshold"]):
            if self.probe(spec, probe):
                return time.monotonic() - begin
            if not self.runs(spec):
                raise RuntimeError(self.log(spec["name"]))
            time.sleep(probe["periodSeconds"])
        raise TimeoutError(f"{spec['name']} would be killed\n{self.log(spec['name'])}")

    def runs(self, spec: dict) -> bool:
        running = self.engine.docker("inspect", "--format={{.State.Running}}", self.container(spec))
        return running.stdout.strip() == "true"

    def is_ready(self) -> bool:
        specs = (*self.sidecars, *self.spec["containers"])
        return all(self.probe(spec, spec["readinessProbe"]) for spec in specs)

    def wait_until_ready(self):
        for spec in self.spec["containers"]:
            self.wait_for_startup(spec)
        wait_until(self.is_ready, "the pod is ready", 60, 0.5)
        return self

    def log(self, name: str) -> str:
        done = self.engine.docker("logs", f"{self.name}-{name}", check=False)
        return done.stdout + done.stderr

    def delete(self) -> float:
        """End the pod: ``preStop``, a signal to all ordinary containers at once, then the sidecars.

        The signal is that of the image, as with a kubelet; SIGTERM where it names none. What does
        not end within the grace period is killed. Return how long it took (s).
        """
        begin = time.monotonic()
        deadline = begin + self.spec["terminationGracePeriodSeconds"]

        def end(spec: dict):
            hook = spec.get("lifecycle", {}).get("preStop")
            if hook:
                assert self.exec(spec["name"], *hook["exec"]["command"]).returncode == 0
            left = max(1, round(deadline - time.monotonic()))
            self.engine.docker("stop", f"--timeout={left}", self.container(spec), timeout=300)
            state = self.engine.docker(
                "inspect", "--format={{.State.ExitCode}}", self.container(spec)
            )
            self.codes[spec["name"]] = int(state.stdout)

        threads = [threading.Thread(target=end, args=[spec]) for spec in self.spec["containers"]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for spec in reversed(self.sidecars):
            end(spec)
        took = time.monotonic() - begin
        self.remove()
        return took

    def remove(self):
        names = [self.container(s) for s in (*self.sidecars, *self.spec["containers"])]
        self.engine.docker("rm", "--force", *names, self.name, check=False)
