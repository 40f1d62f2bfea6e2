"""Hosts of a test: network namespaces on a bridge of their own, each with its engine and worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import patience

ROOT = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """The first true value of `condition()`: several hosts take longer than one."""
    return patience.wait_for(condition, what, timeout)


@dataclass
class Processes:
    """Child processes that are stopped in reverse, each with a log of its own."""

    logs: Path
    environment: Mapping[str, str]
    running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def start(self, name: str, *argv: str, netns: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*enter, *argv],
                env={**self.environment, **environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append((name, process))
        return process

    def stop(self) -> None:
        for name, process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{name} did not stop; its log:\n{self.tail(name)}") from None
        self.running.clear()

    def tail(self, name: str, lines: int = 30) -> str:
        return "\n".join((self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])


class Lan:
    """A bridge with `hosts` network namespaces on it: 10.N.0.1 is this side, 10.N.0.11 the first host."""

    def __init__(self, hosts: int) -> None:
        self._number = 64 + os.getpid() % 128
        self._bridge = f"swlan{os.getpid() % 100000}"
        self.address = f"10.{self._number}.0.1"
        self.names = [f"sw{os.getpid() % 100000}-{index}" for index in range(hosts)]
        self.addresses = [f"10.{self._number}.0.{11 + index}" for index in range(hosts)]

    def lay(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for index, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            near = f"swv{os.getpid() % 100000}-{index}"
            _ip("netns", "add", name)
            _ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", near, "master", self._bridge, "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", self.address)

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", self._bridge], check=False)


def python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
