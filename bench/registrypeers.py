"""What others push and pull with: a registry as a process of its own, podman, docker and skopeo."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.engines import free_port, wait_until


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[str]:
    """A registry as a process of its own; gives its host."""
    port = free_port()
    if kind == "ours":
        words = [sys.executable, "-m", "engine.registry.server", "--port", str(port), "--root", str(folder)]
    else:
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
        }
        folder.with_suffix(".json").write_text(json.dumps(config))
        words = ["docker-registry", "serve", str(folder.with_suffix(".json"))]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Podman:
    def __init__(self, folder: Path, base: Path, host: str) -> None:
        self._folder = folder
        self._places = 1
        self._name = f"{host}/podman:1"
        self(0, "import", "-q", str(base), self._name)

    def __call__(self, place: int, *words: str) -> None:
        roots = ["--root", f"{self._folder}/root{place}", "--runroot", f"{self._folder}/run{place}"]
        subprocess.run(["podman", *roots, "--storage-driver", "overlay", *words], capture_output=True, check=True)

    def push(self) -> None:
        self(0, "push", "-q", "--tls-verify=false", self._name)

    def pull(self) -> None:
        self(self._places, "pull", "-q", "--tls-verify=false", self._name)

    def forget(self) -> None:
        self._places += 1

    def cpu(self) -> float:
        return cpu_of_children()

    def close(self) -> None:
        for place in range(self._places + 1):
            self(place, "rmi", "--all", "--force")


class Skopeo:
    """Moves bytes that are packed already between a folder and the registry."""

    def __init__(self, folder: Path, source: str, host: str) -> None:
        self._folder = folder
        self._places = 0
        self._name = f"docker://{host}/skopeo:1"
        self._copy("--src-tls-verify=false", f"docker://{source}", f"oci:{folder}/packed:1")

    def _copy(self, *words: str) -> None:
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *words], check=True)

    def push(self) -> None:
        self._copy("--dest-tls-verify=false", f"oci:{self._folder}/packed:1", self._name)

    def pull(self) -> None:
        self._copy("--src-tls-verify=false", self._name, f"oci:{self._folder}/pulled{self._places}:1")

    def forget(self) -> None:
        self._places += 1

    def cpu(self) -> float:
        return cpu_of_children()


class Docker:
    """dockerd with folders of its own, without any network."""

    def __init__(self, folder: Path, base: Path, host: str) -> None:
        folder.mkdir()
        self._name = f"{host}/docker:1"
        self._socket = f"unix://{folder}/d.sock"
        words = ["dockerd", "-H", self._socket, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        words += ["--pidfile", f"{folder}/pid", "--bridge=none", "--iptables=false", "--ip-masq=false"]
        words += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2"]
        self._daemon = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: self._does("version"), "dockerd does not start")
            self("import", str(base), self._name)
        except BaseException:
            self.close()
            raise

    def _does(self, *words: str) -> bool:
        return subprocess.run(["docker", "-H", self._socket, *words], capture_output=True, check=False).returncode == 0

    def __call__(self, *words: str) -> None:
        subprocess.run(["docker", "-H", self._socket, *words], capture_output=True, check=True)

    def push(self) -> None:
        self("push", "-q", self._name)

    def pull(self) -> None:
        self("pull", "-q", self._name)

    def forget(self) -> None:
        self._does("rmi", self._name)
        self("image", "prune", "-f")

    def cpu(self) -> float:
        """Of the daemon and all that it has started."""
        ticks = 0
        pending = [self._daemon.pid]
        while pending:
            pid = pending.pop()
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
                for task in Path(f"/proc/{pid}/task").iterdir():
                    pending += map(int, (task / "children").read_text().split())
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait()


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
