"""Where a container's program begins: the folder is there from the container's creation on."""

from __future__ import annotations

import pytest

from engine.containers.hostconfig import HostConfig
from engine.errors import InvalidInput
from tests.engine.containers.harness import Rooms

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


async def test_what_the_image_lacks_is_made_for_root_at_the_creation(rooms: Rooms) -> None:
    ref = await rooms.create("stat", "-c", "%u:%g %a", "/deep", ".", working_dir="/deep/work")
    assert [change["Path"] for change in await rooms.containers.files.changes(rooms.get(ref))] == [
        "/deep",
        "/deep/work",
    ]
    assert (await rooms.containers.files.stat(rooms.get(ref), "/deep/work/."))["name"] == "work"
    await rooms.containers.start(ref)
    await rooms.containers.wait(ref)
    assert await rooms.said(ref) == (b"0:0 755\n0:0 755\n", b"")


async def test_what_the_image_has_is_left_alone(rooms: Rooms) -> None:
    for _ in range(2):
        ref = await rooms.create("true", working_dir="/home/alice")
        assert await rooms.containers.files.changes(rooms.get(ref)) == []


async def test_a_file_in_its_place(rooms: Rooms) -> None:
    folder = rooms.config.data_root / "containers"
    before = set(folder.glob("*/upper"))
    binds = HostConfig(network_mode="none", binds=["unmade:/v"])
    for _ in range(2):
        with pytest.raises(InvalidInput, match="Cannot mkdir: /etc/passwd is not a directory"):
            await rooms.create("true", name="unmade", host=binds, working_dir="/etc/passwd")
    assert set(folder.glob("*/upper")) == before
    assert "unmade" not in rooms.containers.volumes
