"""Names and options as weapons: what is only text stays text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError, InvalidInput
from engine.images.config import ContainerConfig, ImageConfig, RootFS
from engine.images.reference import Reference
from tests.engine.containers.harness import Rooms, host

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("name", ["../../x", "/../x", "a/b", "x\n", "x\0y", "-rm", "..", "x" * 300, "\x1b[2Jx"])
async def test_names(rooms: Rooms, name: str) -> None:
    before = everything(rooms)
    with pytest.raises(InvalidInput, match="name"):
        await rooms.create("true", name=name)
    if not name.startswith("/"):
        with pytest.raises(EngineError):
            await rooms.create("true", host=host(Binds=[f"{name}:/data"]))
    with pytest.raises(EngineError):
        await rooms.create("true", host=host(Mounts=[{"Type": "volume", "Source": name, "Target": "/data"}]))
    with pytest.raises(EngineError):
        rooms.get(name)
    assert everything(rooms) == before


def everything(rooms: Rooms) -> set[str]:
    """Folders that names could make."""
    root = rooms.config.data_root
    return {
        str(path) for folder in (root, root.parent, root / "volumes", root / "containers") for path in listed(folder)
    }


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


ODD = "a\nb=c,d\":'\\\t\x1b[2J;$(touch /tmp/evil) ../..\u202e"


async def test_labels_and_variables_come_back_as_they_went_in(rooms: Rooms) -> None:
    made = await rooms.create(
        "sh", "-c", 'printf %s "$ODD"', labels={ODD: ODD}, env=[f"ODD={ODD}"], host=host(Annotations={ODD: ODD})
    )
    await rooms.containers.start(made)
    await rooms.containers.wait(made)
    assert (await rooms.said(made))[0].decode() == ODD
    shown = json.loads(json.dumps(rooms.containers.inspect(made)))
    assert shown["Config"]["Labels"] == {ODD: ODD}
    assert shown["Config"]["Env"][-1] == f"ODD={ODD}" or f"ODD={ODD}" in shown["Config"]["Env"]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "folder", ["a,b", "a b", "a\nb", "a,lowerdir=etc", "a\\040b", 'q"uote', "ünïcode", "x-beneath=etc"]
)
async def test_folders_with_odd_names_are_mounted_as_they_are(rooms: Rooms, tmp_path: Path, folder: str) -> None:
    source = tmp_path / folder
    source.mkdir()
    (source / "file").write_text("here")
    wanted = host(Mounts=[{"Type": "bind", "Source": str(source), "Target": f"/in/{folder}", "ReadOnly": True}])
    exited, out, err = await rooms.run("sh", "-c", 'cat "$0/file"; echo x > "$0/file"', f"/in/{folder}", host=wanted)
    assert (exited.code, out) == (1, "here")
    assert "Read-only" in err


@pytest.mark.parametrize(
    "wanted",
    [
        {"Tmpfs": {"/x": "size=1m,uid=0\n/etc /y none bind"}},
        {"Tmpfs": {"../etc": ""}},
        {"Binds": ["/etc:../x"]},
        {"Binds": ["/tmp/../../etc/..:/"]},
        {
            "Mounts": [
                {"Type": "volume", "Source": "vol", "Target": "/x", "VolumeOptions": {"Subpath": "../../containers"}}
            ]
        },
        {"Mounts": [{"Type": "bind", "Source": "relative", "Target": "/x"}]},
        {"Sysctls": {"net/../kernel.core_pattern": "x"}},
        {"Sysctls": {"kernel.core_pattern": "|/evil"}},
        {"CgroupParent": "../../.."},
        {"CgroupParent": "/a/../../.."},
        {"Devices": [{"PathOnHost": "/dev/../etc/passwd", "PathInContainer": "/dev/x"}]},
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/../etc/x"}]},
        {"ExtraHosts": ["a:1.1.1.1\n127.0.0.1 evil"]},
        {"Dns": ["1.1.1.1\nnameserver 6.6.6.6"]},
        {"SecurityOpt": ["seccomp=/etc/passwd"]},
        {"Runtime": "/bin/sh"},
        {"LogConfig": {"Type": "../../x"}},
        {"PidMode": "container:../../x"},
        {"NetworkMode": "container:../../x"},
        {"IpcMode": "ns:/proc/1/ns/ipc"},
        {"VolumesFrom": ["../x"]},
        {"Links": ["../x:y"]},
    ],
    ids=str,
)
async def test_options_that_want_more(rooms: Rooms, wanted: dict[str, Any]) -> None:
    before = everything(rooms)
    with pytest.raises(EngineError) as refused:
        await rooms.run("true", host=host(**wanted))
    assert "\n" not in str(refused.value)
    for volume in rooms.containers.volumes.list():
        rooms.containers.volumes.remove(volume.name)
    assert everything(rooms) <= before | {str(rooms.config.data_root / "containers")}
    assert len(await rooms.launcher.list()) == 0


@pytest.mark.parametrize("hostname", ["a\nb", "x" * 64, "a\0"])
async def test_host_names(rooms: Rooms, hostname: str) -> None:
    with pytest.raises(InvalidInput, match=r"hostname|NUL"):
        await rooms.create("true", hostname=hostname)


async def test_a_container_of_127_layers(rooms: Rooms, tmp_path: Path) -> None:
    """More than a page of mount options can name."""
    box = rooms.images.get("box")
    chain, layers = box.config.chain_ids[-1], []
    for number in range(127 - len(box.config.rootfs.diff_ids)):
        folder = tmp_path / f"layer{number}"
        folder.mkdir()
        (folder / f"file{number}").write_text(str(number))
        (folder / "shared").write_text(str(number))
        layers.append(rooms.images.add_layer_from_dir(chain, folder))
        chain = layers[-1].chain_id
    config = ImageConfig(
        architecture="amd64",
        config=ContainerConfig(env=("PATH=/bin",)),
        rootfs=RootFS((*box.config.rootfs.diff_ids, *(layer.diff_id for layer in layers))),
    )
    rooms.images.create_image(config, layers, Reference.parse("deep"), parent=box.id)
    for namespaces in ("", "host"):
        made = await rooms.containers.create(
            None,
            type(rooms.get(await rooms.create("true")).config)(
                image="deep", cmd=["sh", "-c", "ls / | grep -c file; cat /shared"]
            ),
            host(UsernsMode=namespaces),
        )
        await rooms.containers.start(made.id)
        await rooms.containers.wait(made.id)
        assert (await rooms.said(made.id))[0].split() == [b"126", b"125"]
