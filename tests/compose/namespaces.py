"""The cluster of docker-compose.yml without Docker: each service in a network namespace of its own.

What runs is read from the file: the gateways' environment, Redis' command, nginx' configuration, which asks a DNS at Docker's
address for `gateway`. A container's links to the networks `edge` and `inner` are veth pairs, and pulling one is pulling a cable:
no FIN, no RST. It runs as root in namespaces of the process' own (`enter`), which end with it, and whatever runs in them too.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
DNS = Path(__file__).with_name("dns.py")
NETWORKS = {"edge": "172.30.1", "inner": "172.30.2"}
INSIDE = "FANFARE_INSIDE"
GRACE_SECONDS = 60


def enter():
    """Starts this program again where its networks, mounts and processes are its own."""
    if os.environ.get(INSIDE):
        return
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    again = ["env", f"{INSIDE}=1", f"PATH={os.environ['PATH']}", sys.executable, *sys.argv]
    command = [*own, *again] if os.geteuid() == 0 else ["sudo", *own, *again]
    os.execvp(command[0], command)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def interpolated(value):
    """`${NAME:-default}`, without the environment: what the file says counts."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


class Gateway:
    def __init__(self, number, process):
        self.number, self.process = number, process
        self.name = f"gateway-{number}"


class Namespaces:
    """`start` makes the cluster; the rest is what is done to it."""

    def __init__(self, binary, settings):
        self.binary = Path(binary).resolve()
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.replicas = services["gateway"]["deploy"]["replicas"]
        environment = services["gateway"]["environment"]
        self.environment = {name: interpolated(value) for name, value in environment.items()} | settings
        self.redis_command = [interpolated(it) for it in services["redis"]["command"]]
        # `-c` names a file of a volume, which is the folder nginx here.
        self.nginx_command = services["nginx"]["entrypoint"]
        self.nginx_user = services["nginx"]["user"].split(":")[0]
        self.scratch = Path(tempfile.mkdtemp(prefix="fanfare-compose-"))
        self.scratch.chmod(0o755)
        self.table = self.scratch / "names"
        self.addresses, self.processes, self.running, self.started = {}, [], {}, 0

    def start(self):
        run("mount", "-t", "tmpfs", "none", "/run")
        (Path("/run") / "netns").mkdir()
        run("ip", "link", "set", "lo", "up")
        for network, prefix in NETWORKS.items():
            run("ip", "link", "add", network, "type", "bridge")
            run("ip", "address", "add", f"{prefix}.1/24", "dev", network)
            run("ip", "link", "set", network, "up")
        self.container("redis", ["inner"])
        self.container("nginx", ["edge"])
        self.start_redis()
        self.scale(self.replicas)
        self.start_nginx()

    def container(self, name, networks):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        for network in networks:
            address = f"{NETWORKS[network]}.{10 + len(self.addresses)}"
            self.addresses[name, network] = address
            run("ip", "link", "add", self.cable(name, network), "type", "veth", "peer", "name", network, "netns", name)
            run("ip", "link", "set", self.cable(name, network), "master", network, "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", network)
            run("ip", "-n", name, "link", "set", network, "up")

    def cable(self, name, network):
        return f"{name.replace('gateway', 'g')}-{network}"

    def spawn(self, name, *command, environment=None, **options):
        log = (self.scratch / f"{name}.log").open("ab")
        # The container's host name, which is in its node's name.
        inside = ["nsenter", f"--net=/run/netns/{name}", "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name]
        own = {"PATH": os.environ["PATH"], **(environment or {})}
        process = subprocess.Popen([*inside, *map(str, command)], env=own, stdin=subprocess.DEVNULL, **{"stdout": log, "stderr": log} | options)
        self.processes.append(process)
        return process

    def start_redis(self):
        kept, hosts = self.scratch / "redis", self.scratch / "hosts"
        kept.mkdir()
        run("mount", "--bind", kept, "/var/tmp")  # Where its command keeps its log.
        hosts.write_text(f"127.0.0.1 localhost\n{self.addresses['redis', 'inner']} redis\n")
        run("mount", "--bind", hosts, "/etc/hosts")
        self.spawn("redis", *self.redis_command, "--protected-mode", "no")

    def start_nginx(self):
        self.spawn("nginx", sys.executable, DNS, "127.0.0.11", self.table, stdout=subprocess.PIPE).stdout.readline()
        shutil.copytree(ROOT / "nginx", self.scratch / "nginx")
        prefix = self.scratch / "tmp"
        prefix.mkdir()
        os.chown(prefix, int(self.nginx_user), int(self.nginx_user))
        run("ip", "netns", "exec", "nginx", "sysctl", "-q", "-w", "net.core.somaxconn=4096")
        places = {"/etc/nginx/fanfare": str(self.scratch / "nginx"), "/tmp/": f"{prefix}/"}
        command = [next((it.replace(old, new) for old, new in places.items() if it.startswith(old)), it) for it in self.nginx_command]
        self.spawn("nginx", "setpriv", f"--reuid={self.nginx_user}", f"--regid={self.nginx_user}", "--clear-groups", *command)

    def entrance(self):
        return self.addresses["nginx", "edge"], 8000

    def gateways(self):
        return list(self.running)

    def hosts(self, gateway, node):
        """Whether a node with this name runs there."""
        return node.startswith(f"{gateway}-")

    def is_ready(self, gateway):
        try:
            with urllib.request.urlopen(f"http://{self.addresses[gateway, 'edge']}:8000/ready", timeout=3) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def add(self):
        self.started += 1
        name = f"gateway-{self.started}"
        self.container(name, ["edge", "inner"])
        self.running[name] = self.spawn(name, self.binary, environment=self.environment)

    def tell_dns(self):
        self.table.write_text("".join(f"gateway {self.addresses[name, 'edge']}\n" for name in self.running))

    def scale(self, count):
        """The newest go first, all at once, as with Compose; the DNS leaves out what does not run."""
        while len(self.running) < count:
            self.add()
        going = list(self.running)[count:]
        for name in going:
            self.running[name].terminate()
        codes = [self.running.pop(name).wait(GRACE_SECONDS) for name in going]
        self.tell_dns()
        if any(codes):
            raise OSError(f"gateways that were scaled away exited {codes}")

    def stop(self, gateway):
        self.running[gateway].terminate()
        code = self.running[gateway].wait(GRACE_SECONDS)
        self.remove(gateway)
        return code

    def kill(self, gateway):
        self.running[gateway].kill()
        self.running[gateway].wait()
        self.remove(gateway)

    def remove(self, gateway):
        """With its namespace, so that its address is nobody's."""
        del self.running[gateway]
        run("ip", "netns", "delete", gateway)
        self.tell_dns()

    def pull(self, gateway, network):
        run("ip", "link", "set", self.cable(gateway, network), "down")

    def plug(self, gateway, network):
        run("ip", "link", "set", self.cable(gateway, network), "up")

    def logs(self):
        return "\n".join(f"--- {it.name}\n" + "\n".join(it.read_text(errors="replace").splitlines()[-15:]) for it in self.scratch.glob("*.log"))

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        run("umount", "/var/tmp")
        shutil.rmtree(self.scratch)
