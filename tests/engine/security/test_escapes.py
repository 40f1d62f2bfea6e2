"""Ways out of a container that others have had, tried on ours."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from tests.engine.containers.harness import Rooms
from tests.engine.security.conftest import Attacker
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# Swaps a folder and a link for each other as fast as it can: renameat2 with RENAME_EXCHANGE.
SWAP = """
import ctypes, os, time
libc = ctypes.CDLL(None)
os.chdir("{folder}")
os.makedirs("swapped", exist_ok=True)
if not os.path.lexists("link"):
    os.symlink("{aim}", "link")
print("ready", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until:
    for _ in range(1000):
        libc.renameat2(-100, b"swapped", -100, b"link", 2)
"""


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host's that no container may reach."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "secret").write_text("of the host")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["secret"], "something was planted on the host"
    assert (folder / "secret").read_text() == "of the host"


@asynccontextmanager
async def swapping(attacker: Attacker, folder: str, aim: str, **host: Any) -> AsyncIterator[str]:
    made = await attacker.start(SWAP.format(folder=folder, aim=aim), **host)
    await eventually(lambda: b"ready" in Path(attacker.rooms.get(made).log_path).read_bytes(), "the swapping")
    yield made
    await attacker.rooms.containers.remove(made, force=True, volumes=True)


async def test_the_engine_can_not_be_overwritten_through_proc_self_exe(attacker: Attacker, ids: dict[str, str]) -> None:
    """CVE-2019-5736: a program that says it is /proc/self/exe is our interpreter, and writes to its own file."""
    rooms = attacker.rooms
    script = b"""#!/proc/self/exe
import errno, os
exe = os.open("/proc/self/exe", os.O_RDONLY)
print(os.statvfs(exe).f_flag & os.ST_RDONLY)
for path in ("/proc/self/exe", f"/proc/self/fd/{exe}", "/proc/1/exe"):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try:
            os.open(path, flags)
            print("opened for writing", path)
        except OSError as error:
            pass
for act in (lambda path: os.chmod(path, os.stat(path).st_mode), lambda path: os.truncate(path, os.path.getsize(path))):
    try:
        act("/proc/self/exe")
        print("changed")
    except OSError:
        pass
"""
    for how in ("start", "exec"):
        # As root with every capability: only --privileged may do more.
        host = attacker.host(CapAdd=["ALL"], **ids)
        environment = ["PATH=/bin", "PYTHONHOME=/py", "LD_LIBRARY_PATH=/py/lib"]
        argv = ["/evil"] if how == "start" else ["sleep", "100"]
        made = await rooms.create(*argv, host=host, env=environment)
        await put(rooms, made, "/", "evil", script, 0o755)
        await rooms.containers.start(made)
        if how == "start":
            await rooms.containers.wait(made)
            said = (await rooms.said(made))[0].decode()
        else:
            _, said = await rooms.exec(made, "/evil")
        assert said == "1\n", said


async def put(rooms: Rooms, ref: str, folder: str, name: str, content: bytes, mode: int = 0o644) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        made.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    await rooms.containers.files.put(rooms.get(ref), folder, buffer)


async def test_a_working_folder_that_is_a_descriptor(rooms: Rooms, secret: Path) -> None:
    """CVE-2024-21626: a folder of the host that somebody left open, taken for the working folder."""
    held = os.open(secret, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        sleeper = await rooms.start("sleep", "100")
        await rooms.exec(sleeper, "ln", "-s", "/proc/self/fd/7", "/link")
        for number in (*range(3, 9), 100, 102):
            for folder in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}/..", "/link"):
                seen = ""
                with suppress(EngineError):
                    _, seen, _ = await rooms.run("sh", "-c", "pwd; ls -a . ..; cat secret", working_dir=folder)
                assert "secret\n" not in seen
                assert "of the host" not in seen
                with suppress(EngineError):
                    _, seen = await rooms.exec(sleeper, "sh", "-c", "ls -a . ..; cat secret", working_dir=folder)
                assert "secret\n" not in seen
                assert "of the host" not in seen
    finally:
        os.close(held)


async def test_copies_while_links_are_swapped(attacker: Attacker, ids: dict[str, str], secret: Path) -> None:
    """CVE-2018-15664: a folder is checked, becomes a link to the host's, and is used."""
    rooms = attacker.rooms
    async with swapping(attacker, "/tmp", str(secret), **ids) as made:
        for _ in range(60):
            with suppress(EngineError):
                await put(rooms, made, "/tmp/swapped", "planted", b"x")
            with suppress(EngineError):
                await put(rooms, made, "/tmp", "swapped/planted", b"x")
            with suppress(EngineError):
                _, pieces = await rooms.containers.files.get(rooms.get(made), "/tmp/swapped")
                got = b"".join([piece async for piece in pieces])
                assert b"of the host" not in got
            with suppress(EngineError):
                _, pieces = await rooms.containers.files.get(rooms.get(made), "/tmp/swapped/secret")
                assert b"of the host" not in b"".join([piece async for piece in pieces])


async def test_commits_and_changes_while_links_are_swapped(attacker: Attacker, secret: Path) -> None:
    rooms = attacker.rooms
    async with swapping(attacker, "/tmp", str(secret)) as made:
        for _ in range(5):
            await rooms.containers.files.changes(rooms.get(made))
            await rooms.containers.files.sizes(rooms.get(made))
            image = await rooms.containers.files.commit(rooms.get(made), pause=False)
            (folder, *_) = rooms.images.lowerdirs(image.id)
            assert not list(folder.rglob("secret"))
            exported = b"".join([piece async for piece in rooms.containers.files.export(rooms.get(made))])
            assert b"of the host" not in exported


async def test_mounts_while_links_are_swapped(attacker: Attacker, secret: Path) -> None:
    """CVE-2017-1002101, CVE-2021-30465: a subpath of a volume, and a mount point in it, that become links."""
    rooms = attacker.rooms
    async with swapping(attacker, "/vol", str(secret), Binds=["racing:/vol"]):
        subpath = {"Type": "volume", "Source": "racing", "Target": "/mnt", "VolumeOptions": {"Subpath": "swapped"}}
        for turn in range(8):
            for host in (
                attacker.host(Mounts=[subpath]),
                attacker.host(Binds=["racing:/vol"], Tmpfs={"/vol/swapped": ""}),
                attacker.host(Binds=["racing:/vol", f"{turn}other:/vol/swapped/in"]),
            ):
                seen = ""
                with suppress(EngineError):
                    _, seen, _ = await rooms.run("sh", "-c", "ls /mnt /vol/swapped; echo x > /mnt/planted", host=host)
                assert "secret" not in seen
    for volume in rooms.containers.volumes.list():
        rooms.containers.volumes.remove(volume.name, force=True)


async def test_working_folders_and_devices_on_a_racing_volume(attacker: Attacker, secret: Path) -> None:
    rooms = attacker.rooms
    async with swapping(attacker, "/vol", str(secret), Binds=["racing:/vol"]):
        for _ in range(8):
            with suppress(EngineError):
                await rooms.run("true", host=attacker.host(Binds=["racing:/vol"]), working_dir="/vol/swapped/made")
            device = {"PathOnHost": "/dev/null", "PathInContainer": "/vol/swapped/nil", "CgroupPermissions": "r"}
            with suppress(EngineError):
                await rooms.run("true", host=attacker.host(Binds=["racing:/vol"], Devices=[device]))
    rooms.containers.volumes.remove("racing", force=True)


@pytest.mark.parametrize("name", ["null", "console", "ptmx", "pts", "shm", "fd"])
async def test_devices_that_are_links(attacker: Attacker, ids: dict[str, str], name: str) -> None:
    """CVE-2025-31133 and -52565: /dev is a volume in which another container has put links."""
    rooms = attacker.rooms
    aim = "/proc/sys/kernel/core_pattern"
    await rooms.run("ln", "-s", aim, f"/vol/{name}", host=attacker.host(Binds=["devices:/vol"]))
    script = f"grep -c ' /proc/sys ' /proc/self/mountinfo; echo '|evil' > {aim}; cat /proc/kcore | wc -c"
    for tty in (False, True):
        seen = ""
        with suppress(EngineError):
            _, seen, _ = await rooms.run("sh", "-c", script, host=attacker.host(Binds=["devices:/dev"], **ids), tty=tty)
        words = seen.split()
        assert words == [] or (words[0] == "1" and words[-1] == "0"), seen
    assert "evil" not in Path(aim).read_text()
    rooms.containers.volumes.remove("devices", force=True)


async def test_a_null_device_swapped_during_starts(attacker: Attacker) -> None:
    rooms = attacker.rooms
    swap = SWAP.replace('os.makedirs("swapped", exist_ok=True)', 'open("swapped", "w").close()').replace(
        "swapped", "null"
    )
    made = await attacker.start(swap.format(folder="/vol", aim="/proc/sys/kernel/core_pattern"), Binds=["devices:/vol"])
    await eventually(lambda: b"ready" in Path(rooms.get(made).log_path).read_bytes(), "the swapping")
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for _ in range(10):
        with suppress(EngineError):
            _, seen, _ = await rooms.run(
                "sh",
                "-c",
                "cat /proc/keys /proc/kcore; echo '|evil' > /proc/keys",
                host=attacker.host(Binds=["devices:/dev"]),
            )
            assert seen == ""
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    await rooms.containers.remove(made, force=True)
    rooms.containers.volumes.remove("devices", force=True)


@pytest.mark.parametrize(
    "mounts",
    [
        {"Binds": ["fake:/proc"]},
        {"Tmpfs": {"/proc": ""}},
        {"Binds": ["fake:/proc/sys"]},
        {"Binds": ["fake:/proc/self/attr"]},
        {"Tmpfs": {"/proc/1": ""}},
        {"Binds": ["/proc/sys:/proc/sys"]},
    ],
    ids=str,
)
async def test_a_proc_of_ones_own(rooms: Rooms, attacker: Attacker, mounts: dict[str, Any]) -> None:
    """CVE-2025-52881: what is written to /proc during a start goes where somebody else likes."""
    with pytest.raises(EngineError, match="proc"):
        await rooms.run("true", host=attacker.host(Sysctls={"kernel.shmmax": "1"}, **mounts))
    for volume in rooms.containers.volumes.list():
        rooms.containers.volumes.remove(volume.name, force=True)


async def test_an_image_with_links_where_mounts_go(attacker: Attacker, ids: dict[str, str], secret: Path) -> None:
    rooms = attacker.rooms
    made = await rooms.create(
        "sh", "-c", "cat /etc/hosts; ls /data /sys; echo x > /data/x", host=attacker.host(Binds=["vol:/data"], **ids)
    )
    upper = rooms.config.data_root / "containers" / made / "upper"
    for name in ("data", "sys", "proc", "dev"):
        (upper / name).symlink_to(secret)
    (upper / "etc").mkdir(exist_ok=True)
    for name in ("hosts", "resolv.conf", "hostname"):
        (upper / "etc" / name).symlink_to(secret / "secret")
    with suppress(EngineError):
        await rooms.containers.start(made)
        await rooms.containers.wait(made)
        out, _ = await rooms.said(made)
        assert b"of the host" not in out
    await rooms.containers.remove(made, force=True)
    rooms.containers.volumes.remove("vol", force=True)


async def test_libraries_of_a_container_are_not_loaded_by_the_engine(rooms: Rooms) -> None:
    """CVE-2019-14271: looking a user up in the container's files loads the container's libnss."""
    made = await rooms.start("sleep", "100", user="alice")
    for name in ("libnss_files.so.2", "libnss_compat.so.2", "libc.so.6", "nsswitch.conf"):
        folder = "/etc" if name.endswith("conf") else "/lib/x86_64-linux-gnu"
        await rooms.exec(made, "mkdir", "-p", folder, user="0")
        await put(rooms, made, folder, name, b"\x7fELF poison")
    await put(rooms, made, "/tmp", "file", b"x")
    _, pieces = await rooms.containers.files.get(rooms.get(made), "/tmp")
    assert [piece async for piece in pieces]
    data = str(rooms.config.data_root)
    for process in ("self", *(str(child) for child in children_of_the_engine(rooms))):
        with suppress(OSError):
            assert f"{data}/containers" not in Path(f"/proc/{process}/maps").read_text()


def children_of_the_engine(rooms: Rooms) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and str(rooms.config.exec_root).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    assert found
    return found


async def test_one_containers_root_is_nobody_to_another(attacker: Attacker) -> None:
    """Two containers that share a process namespace's host and nothing else: ids of one are no ids of the other."""
    rooms = attacker.rooms
    first = await rooms.start("sleep", "100")
    second = await rooms.start("sleep", "100", host=attacker.host(PidMode=f"container:{first}"))
    third = await rooms.start("sleep", "100")
    shifts = {rooms.get(each).id_shift for each in (first, third)}
    assert len(shifts) == 2
    assert 0 not in shifts
    assert rooms.get(second).id_shift == rooms.get(first).id_shift


async def test_a_terminal_takes_no_words_from_the_container(rooms: Rooms) -> None:
    """TIOCSTI: what is pushed into the terminal's input would be typed to whoever attached it."""
    made = await rooms.start("sleep", "100", tty=True, open_stdin=True)
    state = rooms.containers.inspect(made)["State"]
    session = os.readlink(f"/proc/{state['Pid']}/fd/0")
    assert session.startswith("/dev/pts/")
    assert os.getsid(state["Pid"]) == state["Pid"]
    await asyncio.wait_for(rooms.containers.stop(made, timeout=0), 10)


INIT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
found = []
for name in ("exe", "root", "cwd", "ns/mnt", "ns/user"):
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_PATH):
        try:
            os.open(f"/proc/1/{name}", flags)
            found.append(f"open {name} {flags}")
        except OSError:
            pass
    try:
        found.append(os.readlink(f"/proc/1/{name}"))
    except OSError:
        pass
for name in ("mem", "maps", "smaps", "environ", "auxv", "pagemap", "stack", "syscall", "io"):
    try:
        open(f"/proc/1/{name}", "rb").read(1)
        found.append(f"read {name}")
    except OSError:
        pass
for name in ("fd", "map_files", "fdinfo"):
    try:
        found += [f"{name}: {entry}" for entry in os.listdir(f"/proc/1/{name}")]
    except OSError:
        pass
if libc.ptrace(0x4206, 1, 0, 0) == 0:
    found.append("traced")
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
if libc.process_vm_readv(1, vector, 1, vector, 1, 0) > 0:
    found.append("memory")
told = open("/proc/1/cmdline").read().strip(chr(0)) + open("/proc/1/comm").read().strip()
print(found, told)
"""


@pytest.mark.parametrize("more", [{}, {"CapAdd": ["SYS_PTRACE"]}], ids=["", "SYS_PTRACE"])
async def test_nobody_reaches_the_engine_through_an_init(
    attacker: Attacker, ids: dict[str, str], more: dict[str, Any]
) -> None:
    """With --init process 1 is our interpreter: its file, its memory and what it was told stay out of reach.

    Only the host's root with CAP_SYS_PTRACE may look into any process, and it can't write the file even so.
    """
    said = await attacker.run(INIT, Init=True, **ids, **more)
    if ids and more:
        assert "open exe 1" not in said
    else:
        assert said == "[] initinit\n"


async def test_a_privileged_container_can_not_overwrite_the_engine_through_its_init(attacker: Attacker) -> None:
    before = Path("/proc/self/exe").resolve().read_bytes()
    code = """
import os
try:
    os.open("/proc/1/exe", os.O_WRONLY)
    print("open")
except OSError as error:
    print(error.errno)
"""
    assert int(await attacker.run(code, Init=True, Privileged=True)) in (errno.EROFS, errno.ETXTBSY)
    assert Path("/proc/self/exe").resolve().read_bytes() == before
