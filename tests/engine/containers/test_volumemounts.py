"""Volumes that are mounts of their own: on a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.containers.hostconfig import HostConfig
from engine.errors import InvalidInput, SystemFailure
from engine.kernel import libc
from tests.engine.containers.harness import Rooms

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


def _mounted(name: str) -> bool:
    return f"/volumes/{name}/_data " in Path("/proc/self/mountinfo").read_text()


def _with(name: str) -> HostConfig:
    return HostConfig(network_mode="none", binds=[f"{name}:/v"])


async def test_a_folder_of_the_host_is_not_the_volumes_to_delete(rooms: Rooms, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("here\n")
    options = {"type": "none", "device": str(tmp_path), "o": "bind"}
    volumes = rooms.containers.volumes
    volumes.create("bound", options=options)
    assert not _mounted("bound")
    first = await rooms.start("sleep", "600", host=_with("bound"))
    _, said, _ = await rooms.run("sh", "-c", "cat /v/kept; echo more > /v/new", host=_with("bound"))
    assert (said, (tmp_path / "new").read_text()) == ("here\n", "more\n")
    assert _mounted("bound"), "the first still has it"
    await rooms.containers.remove(first, force=True)
    assert not _mounted("bound")
    volumes.create("closed", options=options | {"o": "bind,ro"})
    exited, _, _ = await rooms.run("touch", "/v/x", host=_with("closed"))
    assert exited.code == 1
    # As a crash may leave it.
    volumes.hold(volumes.get("bound"), "nobody")
    volumes.remove("bound")
    volumes.remove("closed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "new"]
    assert not _mounted("bound")


async def test_a_file_system_of_its_own(rooms: Rooms) -> None:
    rooms.containers.volumes.create("small", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,noexec"})
    _, said, _ = await rooms.run("sh", "-c", "df /v | tail -1; touch /v/x", host=_with("small"))
    assert said.split()[:2] == ["tmpfs", "1024"]
    _, said, _ = await rooms.run("ls", "/v", host=_with("small"))
    assert said == "", "it goes with its last container"
    rooms.containers.volumes.remove("small")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"colour": "red"}, 'invalid option: "colour"'),
        ({"type": "none"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
    ],
)
async def test_options_that_are_no_mount(rooms: Rooms, options: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        rooms.containers.volumes.create("never", options=options)


async def test_what_can_not_be_mounted(rooms: Rooms) -> None:
    rooms.containers.volumes.create("lost", options={"type": "none", "device": "/nothing", "o": "bind"})
    made = await rooms.create("true", host=_with("lost"))
    with pytest.raises(SystemFailure, match=r"mount /nothing:.*no such file or directory"):
        await rooms.containers.start(made)
    await rooms.containers.remove(made)
    rooms.containers.volumes.remove("lost")


async def test_what_can_not_be_deleted_keeps_nothing_else(rooms: Rooms) -> None:
    volumes = rooms.containers.volumes
    folder = volumes.create("stuck").path
    for number in range(20):
        (folder / f"{number}").mkdir()
    held = folder / "10"
    libc.mount("tmpfs", str(held), "tmpfs")
    try:
        volumes.remove("stuck")
        assert list(folder.iterdir()) == [held]
        assert "stuck" not in [volume.name for volume in volumes.list()]
    finally:
        libc.umount(str(held))
