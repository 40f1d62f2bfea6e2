"""Small containers of one layer, for the tests."""

from __future__ import annotations

import json
from pathlib import Path

from engine.runtime.launcher import Exit, Launcher, LogConfig, Overlay
from engine.runtime.spec import (
    Capabilities,
    Linux,
    LinuxNamespace,
    Mount,
    Process,
    Root,
    Spec,
)

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
KEPT = ["CAP_CHOWN", "CAP_KILL"]
MOUNTS = [
    Mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    Mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    Mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    Mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
]


class Box:
    """Makes and runs containers of one layer."""

    def __init__(self, launcher: Launcher, layer: Path, folder: Path) -> None:
        self.launcher, self._layer, self._folder = launcher, layer, folder

    def overlay(self, name: str) -> Overlay:
        for part in ("upper", "work"):
            (self._folder / name / part).mkdir(parents=True)
        return Overlay((self._layer,), self._folder / name / "upper", self._folder / name / "work")

    def log(self, name: str) -> LogConfig:
        return LogConfig(self._folder / name / "log")

    async def create(self, name: str, spec: Spec, *, open_stdin: bool = False) -> int:
        return await self.launcher.create(
            name, spec, rootfs=self.overlay(name), log=self.log(name), open_stdin=open_stdin
        )

    async def run(self, spec: Spec, name: str = "one") -> tuple[Exit, str]:
        """Runs to the end; returns it and what was written, both streams together."""
        await self.create(name, spec)
        try:
            await self.launcher.start(name)
            exited = await self.launcher.wait(name)
        finally:
            await self.launcher.delete(name)
        return exited, "".join(entry["log"] for entry in self.entries(name))

    def entries(self, name: str = "one") -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log(name).path.read_text().splitlines()]


def make_spec(*args: str, linux: Linux | None = None, **process: object) -> Spec:
    linux = linux or Linux()
    linux.namespaces = linux.namespaces or [LinuxNamespace(kind) for kind in NAMESPACES]
    options = {"capabilities": Capabilities(KEPT, KEPT, [], KEPT, []), **process}
    return Spec(
        process=Process(list(args), env=["PATH=/bin"], **options),  # type: ignore[arg-type]
        root=Root("/"),
        hostname="box",
        mounts=MOUNTS,
        linux=linux,
    )
