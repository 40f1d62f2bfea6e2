"""Where a container's program begins: the folder is there from the container's creation on."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.containers.hostconfig import HostConfig
from engine.containers.model import ContainerConfig
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


async def test_it_is_made_where_a_link_of_the_image_leads(rooms: Rooms) -> None:
    linking = await rooms.start("sh", "-c", "ln -s /far/away /to; ln -s /round /round")
    await rooms.containers.wait(linking)
    await rooms.containers.files.commit(rooms.get(linking), reference="linked:1")
    wanted = ContainerConfig(image="linked:1", cmd=["pwd"], working_dir="/to")
    made = await rooms.containers.create(None, wanted, HostConfig(network_mode="none"))
    assert [change["Path"] for change in await rooms.containers.files.changes(made)] == ["/far", "/far/away"]
    await rooms.containers.start(made.id)
    await rooms.containers.wait(made.id)
    assert await rooms.said(made.id) == (b"/far/away\n", b"")
    wanted = ContainerConfig(image="linked:1", cmd=["pwd"], working_dir="/round")
    with pytest.raises(InvalidInput, match=r"Cannot mkdir: .* /round: Too many levels of symbolic links"):
        await rooms.containers.create(None, wanted, HostConfig(network_mode="none"))


async def test_what_is_mounted_gets_it_at_the_start(rooms: Rooms, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    host = HostConfig(network_mode="none", binds=[f"{tmp_path}/v:/v"], tmpfs={"/t": ""}, readonly_rootfs=True)
    for path in ("/v/deep/work", "/t/deep/work"):
        assert (await rooms.run("pwd", host=host, working_dir=path, user="alice"))[1] == f"{path}\n"
    made = (tmp_path / "v/deep/work").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (0, 0o755)


async def test_a_file_in_its_place(rooms: Rooms) -> None:
    folder = rooms.config.data_root / "containers"
    before = set(folder.glob("*/upper"))
    binds = HostConfig(network_mode="none", binds=["unmade:/v"])
    for _ in range(2):
        with pytest.raises(InvalidInput, match="Cannot mkdir: /etc/passwd is not a directory"):
            await rooms.create("true", name="unmade", host=binds, working_dir="/etc/passwd")
    assert set(folder.glob("*/upper")) == before
    assert "unmade" not in rooms.containers.volumes
