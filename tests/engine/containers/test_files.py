"""cp, diff, export, commit, volumes and binds of containers with ids of their own: on a real kernel."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.containers.hostconfig import HostConfig
from engine.errors import Forbidden, InvalidInput, NotFound
from tests.engine.containers.harness import Rooms, host

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


def tar(*members: tuple[str, bytes | None, int, int], **links: str) -> io.BytesIO:
    """(name, content or None for a folder, mode, owner) of each member; `links` are symbolic."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content, mode, owner in members:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid, entry.mtime = mode, owner, owner, 1_000_000_000
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            made.addfile(entry, io.BytesIO(content or b""))
        for name, aim in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, aim
            made.addfile(entry)
    buffer.seek(0)
    return buffer


async def members(pieces: AsyncIterator[bytes]) -> dict[str, tarfile.TarInfo]:
    whole = io.BytesIO(b"".join([piece async for piece in pieces]))
    with tarfile.open(fileobj=whole) as read:
        return {entry.name: entry for entry in read}


async def got(rooms: Rooms, ref: str, path: str) -> dict[str, tarfile.TarInfo]:
    return await members((await rooms.containers.files.get(rooms.get(ref), path))[1])


@pytest.fixture(params=["running", "created"])
def running(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "running")


async def made(rooms: Rooms, running: bool, **more: Any) -> str:
    make = rooms.start if running else rooms.create
    return await make("sleep", "100", **more)


async def test_files_come_in_with_their_owners(rooms: Rooms, running: bool) -> None:
    ref = await made(rooms, running)
    await rooms.containers.files.put(
        rooms.get(ref),
        "/home/alice",
        tar(("new", None, 0o750, 1000), ("new/file", b"hello", 0o640, 1000), ("note", b"changed", 0o600, 0)),
    )
    if not running:
        await rooms.containers.start(ref)
    script = "cat new/file note; stat -c '%u:%g %a %Y %n' . new new/file note /home /etc/passwd"
    assert await rooms.exec(ref, "sh", "-c", script, working_dir="/home/alice") == (
        0,
        "hellochanged1000:1001 755 {} .\n1000:1000 750 1000000000 new\n1000:1000 640 1000000000 new/file\n"
        "0:0 600 1000000000 note\n0:0 755 {} /home\n0:0 644 {} /etc/passwd\n".format(
            *(await rooms.exec(ref, "sh", "-c", "stat -c %Y /home/alice /home /etc/passwd"))[1].split()
        ),
    )


async def test_files_go_out_with_their_owners(rooms: Rooms, running: bool) -> None:
    ref = await made(rooms, running)
    found = await got(rooms, ref, "/home/alice")
    assert set(found) == {"alice", "alice/note"}
    assert (found["alice"].uid, found["alice/note"].gid, found["alice/note"].size) == (1000, 1001, 9)
    assert set(await got(rooms, ref, "/home/alice/.")) == {".", "./note"}
    assert set(await got(rooms, ref, "/home/alice/note")) == {"note"}
    stat = await rooms.containers.files.stat(rooms.get(ref), "/home/alice/note")
    assert (stat["name"], stat["size"], stat["mode"], stat["linkTarget"]) == ("note", 9, 0o644, "")
    with pytest.raises(NotFound, match="/nowhere"):
        await rooms.containers.files.get(rooms.get(ref), "/nowhere")


async def test_what_root_wrote_inside_is_roots_outside(rooms: Rooms) -> None:
    ref = await rooms.start(
        "sh", "-c", "echo x > /mine; ln /mine /twin; ln -s /mine /link; chown alice /mine; sleep 100"
    )
    assert (await rooms.exec(ref, "sh", "-c", "while [ ! -L /link ]; do :; done; sleep 0.05"))[0] == 0
    upper = rooms.config.data_root / "containers" / ref / "upper"
    shift = rooms.get(ref).id_shift
    assert shift > 0
    assert (upper / "mine").stat().st_uid == shift + 1000
    found = await got(rooms, ref, "/mine")
    assert found["mine"].uid == 1000
    assert (await rooms.containers.files.stat(rooms.get(ref), "/link"))["linkTarget"] == "/mine"
    whole = await members(rooms.containers.files.export(rooms.get(ref)))
    assert whole["mine"].uid == 1000
    assert whole["twin"].islnk()
    assert whole["link"].linkname == "/mine"
    assert whole["home/alice/note"].uid == 1000
    assert whole["etc/passwd"].uid == 0


async def test_links_in_the_container_do_not_lead_out(rooms: Rooms, running: bool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    ref = await made(rooms, running)
    await rooms.containers.files.put(
        rooms.get(ref), "/", tar(out=str(tmp_path), up="../../../../../../../.." + str(tmp_path))
    )
    for link in ("out", "up"):
        with pytest.raises(NotFound):
            await rooms.containers.files.get(rooms.get(ref), f"/{link}/secret")
        with pytest.raises((NotFound, InvalidInput)):
            await rooms.containers.files.put(rooms.get(ref), f"/{link}", tar(("planted", b"x", 0o644, 0)))
    # A link in the archive itself is made, and never walked through.
    with pytest.raises(InvalidInput):
        await rooms.containers.files.put(rooms.get(ref), "/", tar(("out/planted", b"x", 0o644, 0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


async def test_links_in_a_mount_are_the_containers_own(rooms: Rooms, running: bool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    volume = tmp_path / "volume"
    (volume / "real").mkdir(parents=True)
    aims = {"home": "/home", "hop": "note", "note": "home/alice/note", "loop": "loop", "out": str(tmp_path)}
    for name, aim in aims.items():
        (volume / name).symlink_to(aim)
    ref = await rooms.create("sleep", "100", host=host(Binds=[f"{volume}:/run/v"]))
    # A link of the image leads to the mount, and one in the mount back out of it.
    await rooms.containers.files.put(rooms.get(ref), "/", tar(("run", None, 0o755, 0), to="/var/v/home", var="/run"))
    if running:
        await rooms.containers.start(ref)
    assert set(await got(rooms, ref, "/to/alice/note")) == {"note"}
    assert (await rooms.containers.files.stat(rooms.get(ref), "/var/v/hop"))["linkTarget"] == "/home/alice/note"
    assert (await got(rooms, ref, "/run/v/hop"))["hop"].linkname == "note"
    for path in ("/var/v/out/secret", "/run/v/loop/"):
        with pytest.raises(NotFound):
            await rooms.containers.files.get(rooms.get(ref), path)
    await rooms.containers.files.put(rooms.get(ref), "/to", tar(("new", b"x", 0o644, 0)))
    await rooms.containers.files.put(rooms.get(ref), "/var/v/real", tar(("new", b"x", 0o644, 1000)))
    assert set(await got(rooms, ref, "/home/new")) == {"new"}
    assert (volume / "real/new").stat().st_uid == 1000


async def test_files_that_are_mounted_in_one_that_has_ended(rooms: Rooms, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    ref = await rooms.start("true", hostname="me", host=host(Binds=[f"{tmp_path}/file:/file"]))
    await rooms.containers.wait(ref)
    assert (await got(rooms, ref, "/file"))["file"].size == len("of the host")
    name = (await got(rooms, ref, "/etc/hostname"))["hostname"]
    assert (name.size, name.uid) == (len("me\n"), 0)


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/../up"])
async def test_archives_that_step_out(rooms: Rooms, name: str) -> None:
    ref = await rooms.create("true")
    with pytest.raises(InvalidInput, match="outside"):
        await rooms.containers.files.put(rooms.get(ref), "/tmp", tar((name, b"x", 0o644, 0)))


async def test_archives_that_are_none(rooms: Rooms) -> None:
    ref = await rooms.create("true")
    for junk in (b"x" * 1000, b"\0" * 511, b"PK\x03\x04" + b"\0" * 2000):
        with pytest.raises(InvalidInput):
            await rooms.containers.files.put(rooms.get(ref), "/tmp", io.BytesIO(junk))
    with pytest.raises(InvalidInput, match="not a directory"):
        await rooms.containers.files.put(rooms.get(ref), "/etc/passwd", tar())
    with pytest.raises(NotFound):
        await rooms.containers.files.put(rooms.get(ref), "/none", tar())


async def test_folders_and_files_in_each_others_way(rooms: Rooms) -> None:
    ref = rooms.get(await rooms.create("true"))
    into = rooms.containers.files.put
    await into(ref, "/", tar(("d", None, 0o755, 0), ("f", b"x", 0o644, 0), ("d/full", b"x", 0o644, 0)))
    with pytest.raises(InvalidInput, match="cannot overwrite directory"):
        await into(ref, "/", tar(("d", b"x", 0o644, 0)), no_overwrite_dir_non_dir=True)
    with pytest.raises(InvalidInput, match="cannot overwrite non-directory"):
        await into(ref, "/", tar(("f", None, 0o755, 0)), no_overwrite_dir_non_dir=True)
    with pytest.raises(InvalidInput, match="cannot overwrite"):
        await into(ref, "/", tar(("d", b"x", 0o644, 0)))
    await into(ref, "/", tar(("f", None, 0o755, 0)))
    assert set(await got(rooms, ref.id, "/f")) == {"f"}


async def test_a_read_only_container_takes_nothing(rooms: Rooms) -> None:
    ref = await rooms.start("sleep", "100", host=host(ReadonlyRootfs=True, Tmpfs={"/run": ""}))
    assert "Read-only file system" in (await rooms.exec(ref, "touch", "/x"))[1]
    assert (await rooms.exec(ref, "touch", "/run/x"))[0] == 0
    with pytest.raises(Forbidden, match="read-only"):
        await rooms.containers.files.put(rooms.get(ref), "/tmp", tar(("x", b"", 0o644, 0)))


async def test_diff(rooms: Rooms) -> None:
    ref = await rooms.start(
        "sh", "-c", "echo x >> /home/alice/note; rm /etc/group; mkdir /new; touch /new/x; exec sleep 100"
    )
    assert (await rooms.exec(ref, "sh", "-c", "while [ ! -e /new/x ]; do :; done; test -f /.dockerenv"))[0] == 0
    assert await rooms.containers.files.changes(rooms.get(ref)) == [
        {"Path": "/etc", "Kind": 0},
        {"Path": "/etc/group", "Kind": 2},
        {"Path": "/home", "Kind": 0},
        {"Path": "/home/alice", "Kind": 0},
        {"Path": "/home/alice/note", "Kind": 0},
        {"Path": "/new", "Kind": 1},
        {"Path": "/new/x", "Kind": 1},
    ]


async def test_commit_makes_an_image_with_the_files_true_owners(rooms: Rooms) -> None:
    script = "echo x > /mine; chown alice /mine; chmod 4755 /mine; rm -r /home/alice; echo done"
    ref = await rooms.start("sh", "-c", script, labels={"a": "b"})
    await rooms.containers.wait(ref)
    image = await rooms.containers.files.commit(
        rooms.get(ref), reference="made:1", changes=['CMD ["cat", "/mine"]'], author="me"
    )
    again = await rooms.containers.create(None, type(rooms.get(ref).config)(image="made:1"), host())
    await rooms.containers.start(again.id)
    await rooms.containers.wait(again.id)
    assert (await rooms.said(again.id))[0] == b"x\n"
    assert again.image == image.id
    # From another range of ids, and still alice's.
    assert again.id_shift != rooms.get(ref).id_shift
    assert (await got(rooms, again.id, "/mine"))["mine"].uid == 1000
    assert (await got(rooms, again.id, "/mine"))["mine"].mode == 0o4755
    with pytest.raises(NotFound):
        await rooms.containers.files.get(rooms.get(again.id), "/home/alice")


async def test_a_volume_is_filled_once_and_shared(rooms: Rooms) -> None:
    first = await rooms.start("sh", "-c", "echo more > /home/alice/more; chown alice /home/alice/more",
                              host=host(Binds=["data:/home/alice"]))  # fmt: skip
    await rooms.containers.wait(first)
    _, seen, _ = await rooms.run("sh", "-c", "stat -c '%u:%g %n' /data /data/*; rm /data/note",
                                 host=host(Binds=["data:/data"]))  # fmt: skip
    assert seen == "1000:1001 /data\n1000:0 /data/more\n1000:1001 /data/note\n"
    # It is not filled again, and it has the host's ids.
    volume = rooms.containers.volumes.get("data")
    assert sorted(path.name for path in volume.path.iterdir()) == ["more"]
    assert (volume.path / "more").stat().st_uid == 1000
    found = await got(rooms, first, "/home/alice")
    assert found["alice/more"].uid == 1000
    await rooms.containers.files.put(rooms.get(first), "/home/alice", tar(("put", b"x", 0o600, 7)))
    assert (volume.path / "put").stat().st_uid == 7
    await rooms.containers.remove(first)
    rooms.containers.volumes.remove("data")


async def test_a_read_only_volume(rooms: Rooms) -> None:
    ref = await rooms.start("sleep", "100", host=host(Binds=["ro-data:/data:ro"]))
    assert "Read-only" in (await rooms.exec(ref, "touch", "/data/x"))[1]
    with pytest.raises(Forbidden, match="volume is marked read-only"):
        await rooms.containers.files.put(rooms.get(ref), "/data", tar(("x", b"", 0o644, 0)))
    await rooms.containers.remove(ref, force=True)
    rooms.containers.volumes.remove("ro-data")


async def test_a_bind_belongs_to_both_sides(rooms: Rooms, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/file").write_text("of the host\n")
    os.chown(tmp_path / "in/file", 1000, 1001)
    script = "cat /b/file; stat -c %u:%g /b /b/file; echo x > /b/new; chown alice /b/new; touch /ro/x"
    exited, out, err = await rooms.run(
        "sh", "-c", script, host=host(Binds=[f"{tmp_path}/in:/b", f"{tmp_path}/in/sub:/ro:ro"])
    )
    assert out == "of the host\n0:0\n1000:1001\n"
    assert "Read-only" in err
    assert exited.code == 1
    assert (tmp_path / "in/new").stat().st_uid == 1000
    assert (tmp_path / "in/new").stat().st_gid == 0


async def test_a_bind_that_is_not_there(rooms: Rooms, tmp_path: Path) -> None:
    await rooms.run("touch", "/b/x", host=host(Binds=[f"{tmp_path}/made:/b"]))
    assert (tmp_path / "made/x").exists()
    mount = {"Type": "bind", "Source": f"{tmp_path}/none", "Target": "/b"}
    with pytest.raises(InvalidInput, match="does not exist"):
        await rooms.create("true", host=host(Mounts=[mount]))
    assert not (tmp_path / "none").exists()


async def test_tmpfs_and_shared_memory(rooms: Rooms) -> None:
    script = "grep -E ' /(t|m|dev/shm) ' /proc/mounts | cut -d' ' -f2-4 | sed 's/,uid=[0-9]*,gid=[0-9]*//'"
    mount = {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o700}}
    wanted = host(Tmpfs={"/t": "size=1m,exec"}, ShmSize=1 << 20, Mounts=[mount])
    _, seen, _ = await rooms.run("sh", "-c", script, host=wanted)
    assert sorted(seen.splitlines()) == [
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k",
        "/m tmpfs rw,nosuid,nodev,noexec,relatime,size=64k,mode=700",
        "/t tmpfs rw,nosuid,nodev,relatime,size=1024k",
    ]


async def test_a_working_folder_is_made(rooms: Rooms) -> None:
    _, seen, _ = await rooms.run("sh", "-c", "pwd; stat -c %u:%g . /made", working_dir="/made/deep")
    assert seen == "/made/deep\n0:0\n0:0\n"


async def test_volumes_from_another_container(rooms: Rooms) -> None:
    first = await rooms.create("true", host=host(Binds=["shared:/data"]))
    _, seen, _ = await rooms.run("sh", "-c", "touch /data/x; ls /data", host=host(VolumesFrom=[first]))
    assert seen == "x\n"
    _, _, err = await rooms.run("touch", "/data/y", host=host(VolumesFrom=[f"{first}:ro"]))
    assert "Read-only" in err
    await rooms.containers.remove(first)
    rooms.containers.volumes.remove("shared")


async def test_a_bind_of_what_holds_a_pinned_mount_namespace(rooms: Rooms, tmp_path: Path) -> None:
    """As below `/` of a host with snaps."""
    pin = tmp_path / "kept" / "mnt"
    pin.parent.mkdir()
    await asyncio.to_thread(_run, "mount", "--make-private", "-t", "tmpfs", "tmpfs", str(pin.parent))
    try:
        pin.touch()
        await asyncio.to_thread(_run, "unshare", f"--mount={pin}", "true")
        _, seen, _ = await rooms.run("ls", "-s", "/m/kept", host=host(Binds=[f"{tmp_path}:/m"]))
        assert seen.split()[-2:] == ["0", "mnt"]
        assert os.path.ismount(pin)
    finally:
        await asyncio.to_thread(_run, "umount", "-R", str(pin.parent))


async def test_a_shared_bind_carries_mounts_both_ways(rooms: Rooms, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "inner").mkdir(parents=True)
    await asyncio.to_thread(_run, "mount", "--make-private", "-t", "tmpfs", "tmpfs", str(shared))
    try:
        await asyncio.to_thread(_run, "mount", "--make-shared", str(shared))
        (shared / "inner").mkdir()
        binds = host(Binds=[f"{shared}:/m:shared"], Privileged=True)
        code, _, err = await rooms.run("mount", "-t", "tmpfs", "tmpfs", "/m/inner", host=binds)
        assert code.code == 0, err
        assert os.path.ismount(shared / "inner")
    finally:
        await asyncio.to_thread(_run, "umount", "-R", str(shared))


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


async def test_a_volume_over_what_is_mounted_anyway(rooms: Rooms) -> None:
    _, seen, _ = await rooms.run(
        "sh", "-c", "cat /etc/hostname; wc -l < /etc/resolv.conf", hostname="me", volumes={"/etc": {}}
    )
    assert seen.startswith("me\n")
    assert int(seen.split()[1]) > 0


async def test_a_read_only_root_has_nothing_that_can_be_written(rooms: Rooms) -> None:
    files = "/file /etc/hosts /etc/resolv.conf /etc/hostname"
    _, _, err = await rooms.run("touch", *files.split(), host=host(ReadonlyRootfs=True))
    assert err.count("Read-only file system") == 4


async def test_an_empty_volume_is_filled_by_the_next_new_container(rooms: Rooms) -> None:
    await rooms.run("true", host=host(Binds=["later:/home:nocopy"]))
    _, seen, _ = await rooms.run("cat", "/home/alice/note", host=host(Binds=["later:/home"]))
    assert seen


async def test_nameless_volumes_go_with_the_last_who_has_them(rooms: Rooms) -> None:
    first = await rooms.create("true", volumes={"/x": {}})
    second = await rooms.create("true", host=host(VolumesFrom=[first]))
    (point,) = rooms.get(second).mounts
    for one, left in ((first, True), (second, False)):
        await rooms.containers.remove(one, volumes=True)
        assert (point.name in {volume.name for volume in rooms.containers.volumes.list()}) == left


async def test_a_subpath_stays_in_its_volume(rooms: Rooms, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    script = f"mkdir /v/real; echo in > /v/real/x; ln -s real /v/good; ln -s {tmp_path} /v/bad"
    await rooms.run("sh", "-c", script, host=host(Binds=["sub:/v"]))

    def mounted(subpath: str) -> HostConfig:
        return host(Mounts=[{"Source": "sub", "Target": "/m", "VolumeOptions": {"Subpath": subpath}}])

    assert (await rooms.run("cat", "/m/x", host=mounted("good")))[1] == "in\n"
    for subpath in ("bad", "nowhere"):
        made = await rooms.create("true", host=mounted(subpath))
        with pytest.raises(InvalidInput, match="can't mount subpath"):
            await rooms.containers.start(made)
        # Nor is it looked into for docker cp.
        with pytest.raises(NotFound):
            await rooms.containers.files.get(rooms.get(made), "/m/secret")


@pytest.mark.parametrize("init", [False, True])
async def test_joining_another_containers_namespaces(rooms: Rooms, *, init: bool) -> None:
    donor = host(IpcMode="shareable", Init=init)
    first = await rooms.start("sh", "-c", "echo theirs > /dev/shm/x; sleep 1234", hostname="first", host=donor)
    joins = host(NetworkMode=f"container:{first}", PidMode=f"container:{first}", IpcMode=f"container:{first}")
    script = (
        "until ps | grep -q '[s]leep 1234'; do sleep 0.05; done; readlink /proc/self/ns/net; cat /dev/shm/x; hostname"
    )
    _, seen, _ = await rooms.run("sh", "-c", script, host=joins)
    network, memory, name = seen.split()
    assert (memory, name) == ("theirs", "first")  # and not the host's
    assert os.readlink(f"/proc/{rooms.get(first).state.pid}/ns/net") == network


async def test_ipc_of_one_that_does_not_share_it(rooms: Rooms) -> None:
    first = await rooms.start("sleep", "1000")
    joins = await rooms.create("true", host=host(IpcMode=f"container:{first}"))
    with pytest.raises(InvalidInput, match="non-shareable IPC"):
        await rooms.containers.start(joins)
    _, seen, _ = await rooms.run("ls", "/dev", host=host(IpcMode="none"))
    assert "mqueue" in seen
    assert "shm" not in seen


async def test_the_hosts_namespaces(rooms: Rooms) -> None:
    wanted = host(NetworkMode="host", PidMode="host", IpcMode="host", UTSMode="host")
    script = "for n in net pid ipc uts mnt user; do readlink /proc/self/ns/$n; done"
    _, seen, _ = await rooms.run("sh", "-c", script, host=wanted)
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "pid", "ipc", "uts", "mnt", "user")]
    theirs = seen.split()
    assert theirs[:4] == ours[:4]
    assert theirs[4] != ours[4]
    # Root of the host's namespaces can only be the host's.
    assert theirs[5] == ours[5]


@pytest.mark.parametrize("shallow", [False, True])
async def test_a_read_only_bind_is_so_with_all_below_it(rooms: Rooms, tmp_path: Path, shallow: bool) -> None:
    (tmp_path / "sub").mkdir()
    # Mounted after the engine began: it is seen all the same.
    await asyncio.to_thread(subprocess.run, ["mount", "-t", "tmpfs", "none", tmp_path / "sub"], check=True)
    try:
        options = {"ReadOnlyNonRecursive": shallow}
        mount = {"Type": "bind", "Source": str(tmp_path), "Target": "/b", "ReadOnly": True, "BindOptions": options}
        _, _, err = await rooms.run("touch", "/b/x", "/b/sub/x", host=host(Mounts=[mount]))
        assert err.count("Read-only") == (1 if shallow else 2)
        assert (tmp_path / "sub/x").exists() is shallow
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", tmp_path / "sub"], check=True)
