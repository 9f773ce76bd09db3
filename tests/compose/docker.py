"""The cluster of docker-compose.yml, with Docker."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ALWAYS_FREE = "0"
GRACE = "60"


def command_of_compose():
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            continue
    raise OSError("neither `docker compose` nor `docker-compose` is here")


class Containers:
    """`start` makes the cluster; the rest is what is done to it."""

    def __init__(self, settings, builds):
        self.project, self.builds = f"fanfare-faults-{os.getpid()}", builds
        ports = {name: ALWAYS_FREE for name in ("FANFARE_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")}
        self.environment = os.environ | ports | {"COMPOSE_PROJECT_NAME": self.project}
        self.override = tempfile.NamedTemporaryFile("w", suffix=".yml")
        json.dump({"services": {"gateway": {"environment": settings}}}, self.override)  # JSON is YAML.
        self.override.flush()
        self.command = [*command_of_compose(), "-f", "docker-compose.yml", "-f", self.override.name]

    def run(self, *command):
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def compose(self, *arguments):
        return self.run(*self.command, *arguments)

    def start(self):
        if self.builds:
            self.compose("build")
        self.compose("up", "-d")

    def entrance(self):
        return "127.0.0.1", int(self.compose("port", "nginx", "8000").rsplit(":", 1)[1])

    def gateways(self):
        label = [f"label=com.docker.compose.project={self.project}", "label=com.docker.compose.service=gateway"]
        return self.run("docker", "ps", "-q", "--filter", label[0], "--filter", label[1]).split()

    def hosts(self, gateway, node):
        return node.startswith(f"{gateway}-")

    def is_ready(self, gateway):
        command = ["docker", "exec", gateway, "fanfare", "health", "--url", "http://127.0.0.1:8000/ready"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def scale(self, count):
        self.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", f"gateway={count}", "gateway")

    def stop(self, gateway):
        self.run("docker", "stop", "-t", GRACE, gateway)
        code = int(self.run("docker", "inspect", "-f", "{{.State.ExitCode}}", gateway))
        self.run("docker", "rm", gateway)
        return code

    def kill(self, gateway):
        self.run("docker", "kill", gateway)
        self.run("docker", "rm", gateway)

    def pull(self, gateway, network):
        self.run("docker", "network", "disconnect", f"{self.project}_{network}", gateway)

    def plug(self, gateway, network):
        self.run("docker", "network", "connect", "--alias", "gateway", f"{self.project}_{network}", gateway)

    def logs(self):
        return self.compose("logs", "--no-color", "--tail", "20")

    def close(self):
        self.compose("down", "-v", "--remove-orphans")
