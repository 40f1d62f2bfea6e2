"""An engine's containers without its API, in this process: real zygote, real networks, one small image."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import EngineConfig
from engine.containers.events import EventBus
from engine.containers.hostconfig import HostConfig
from engine.containers.lifecycle import Containers
from engine.containers.model import Container, ContainerConfig, from_json
from engine.containers.session import Session
from engine.images.config import ContainerConfig as ImageContainerConfig
from engine.images.config import ImageConfig, RootFS
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.kernel.cgroup.host import groups_below
from engine.network import Networks
from engine.runtime.launcher import Exit, Launcher

PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1001:\nwheel:x:10:alice\ntty:x:5:\n"


@dataclass
class Rooms:
    """The parts, and the few steps that nearly every test takes."""

    config: EngineConfig
    launcher: Launcher
    images: ImageStore
    networks: Networks
    events: EventBus
    containers: Containers

    async def create(self, *argv: str, name: str | None = None, host: HostConfig | None = None, **config: Any) -> str:
        """A container without a network, unless `host` says otherwise; its id."""
        wanted = ContainerConfig(image="box", cmd=list(argv), **config)
        made = await self.containers.create(name, wanted, host or HostConfig(network_mode="none"))
        return made.id

    async def start(self, *argv: str, **more: Any) -> str:
        made = await self.create(*argv, **more)
        await self.containers.start(made)
        return made

    async def run(self, *argv: str, **more: Any) -> tuple[Exit, str, str]:
        """Runs to the end and removes it; (exit, stdout, stderr)."""
        made = await self.create(*argv, **more)
        try:
            ended = asyncio.create_task(self.containers.wait(made, "next-exit"))
            await asyncio.sleep(0)
            await self.containers.start(made)
            exited = await ended
            out, err = await self.said(made)
        finally:
            await self.containers.remove(made, force=True, volumes=True)
        return exited, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape")

    async def said(self, ref: str, **selection: Any) -> tuple[bytes, bytes]:
        """What its log has: (stdout, stderr)."""
        pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        async for stream, _, data in self.containers.streams.logs(self.get(ref), **selection):
            pieces[stream].append(data)
        return b"".join(pieces["stdout"]), b"".join(pieces["stderr"])

    async def exec(self, ref: str, *argv: str, stdin: bytes | None = None, **more: Any) -> tuple[int, str]:
        """(exit code, both streams together) of an execution."""
        made = self.containers.execs.create(self.get(ref), argv, stdin=stdin is not None, **more)
        session = await self.containers.execs.start(made)
        assert session is not None
        if stdin is not None:
            await session.write(stdin)
            await session.close_stdin()
        said = await output(session)
        await session.close()
        return made.json()["ExitCode"], said.decode(errors="replace")

    def get(self, ref: str) -> Container:
        return self.containers.get(ref)


def host(**more: Any) -> HostConfig:
    """In Docker's words; without a network."""
    return from_json(HostConfig, {"NetworkMode": "none", **more})


async def output(session: Session) -> bytes:
    """All that a session gives, both streams together."""
    return b"".join([data async for _, data in session.output()])


def make_root(folder: Path) -> Path:
    """The files of the test image: busybox, two users, a folder of alice's."""
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home", 0o755)):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(mode)
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    listed = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            (folder / "bin" / applet).hardlink_to(folder / "bin/busybox")
    (folder / "etc/passwd").write_text(PASSWD)
    (folder / "etc/group").write_text(GROUP)
    (folder / "home/alice").mkdir()
    (folder / "home/alice/note").write_text("of alice\n")
    for path in (folder / "home/alice", folder / "home/alice/note"):
        shutil.chown(path, 1000, 1001)
    return folder


def make_image(images: ImageStore, folder: Path, name: str = "box") -> str:
    """The image's id."""
    layer = images.add_layer_from_dir(None, make_root(folder))
    config = ImageConfig(
        architecture="amd64",
        created="2024-01-01T00:00:00Z",
        config=ImageContainerConfig(env=("PATH=/bin",), cmd=("sh",)),
        rootfs=RootFS((layer.diff_id,)),
    )
    return images.create_image(config, [layer], Reference.parse(name)).id


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Rooms]:
    """An engine in `folder`; on leaving nothing of it is left, or the test fails."""
    # A socket's path has at most 107 bytes: pytest's own folders are too deep.
    exec_root = Path(tempfile.mkdtemp(prefix="swc"))
    config = EngineConfig(data_root=folder / "data", exec_root=exec_root)
    # As the daemon does: users of a container's own must be able to pass through.
    config.data_root.mkdir(parents=True)
    config.data_root.chmod(0o711)
    exec_root.chmod(0o711)
    images = ImageStore(config.data_root / "images")
    make_image(images, folder / "root")
    launcher = await Launcher.connect(exec_root, config.cgroup_parent)
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    events = EventBus()
    containers = Containers(config, launcher, images, networks, events)
    await containers.restore()
    try:
        yield Rooms(config, launcher, images, networks, events, containers)
    finally:
        for container in containers.list(all=True):
            await containers.remove(container.id, force=True, volumes=True)
        await containers.close()
        await networks.close()
        await launcher.shutdown()
        images.close()
        shutil.rmtree(exec_root)
    assert groups_below(config.cgroup_parent) == []
