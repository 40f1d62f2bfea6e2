"""Containers that want everything for themselves: they get their share, and the engine works on for the others."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.engine.security.conftest import Attacker
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


async def the_engine_works(attacker: Attacker) -> None:
    rooms = attacker.rooms
    for turn in range(3):
        exited, out, _ = await asyncio.wait_for(rooms.run("sh", "-c", f"echo {turn}"), 20)
        assert (exited.code, out) == (0, f"{turn}\n")


async def test_a_fork_bomb_ends_at_the_limit(attacker: Attacker) -> None:
    rooms = attacker.rooms
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000"
    made = await rooms.start("sh", "-c", bomb, host=attacker.host(PidsLimit=50, Memory=64 << 20))
    await eventually(lambda: "max" in pids(made, "pids.events") and pids(made, "pids.current") >= "3", "the bomb")
    await the_engine_works(attacker)
    stats = await rooms.launcher.stats(made)
    assert stats["pids"]["current"] <= 50
    await asyncio.wait_for(rooms.containers.remove(made, force=True), 20)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{made}"))


def pids(container: str, file: str) -> str:
    for folder in Path("/sys/fs/cgroup").glob(f"pids/shipway/*/{container}"):
        return (folder / file).read_text()
    for folder in Path("/sys/fs/cgroup").glob(f"shipway/*/{container}"):
        return (folder / file).read_text()
    return ""


async def test_a_memory_hog_is_killed_alone(attacker: Attacker) -> None:
    rooms = attacker.rooms
    neighbour = await rooms.start("sleep", "1000")
    limits = attacker.host(Memory=32 << 20, MemorySwap=32 << 20)
    for code in ("x = bytearray(1 << 30)", "import mmap; m = mmap.mmap(-1, 1 << 30); m.write(bytes(1 << 30))"):
        made = await rooms.start(
            "/py/bin/python3", "-c", code, host=limits, env=["PYTHONHOME=/py", "LD_LIBRARY_PATH=/py/lib"]
        )
        exited = await asyncio.wait_for(rooms.containers.wait(made), 30)
        assert (exited.code, exited.oom_killed) == (137, True)
    # What a tmpfs holds is memory too.
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=200; dd if=/dev/zero of=/t/x bs=1M count=200"
    wanted = attacker.host(Memory=32 << 20, MemorySwap=32 << 20, ShmSize=1 << 30, Tmpfs={"/t": ""})
    made = await rooms.start("sh", "-c", fill, host=wanted)
    await asyncio.wait_for(rooms.containers.wait(made), 30)
    used = await rooms.containers.usage.stats(rooms.get(neighbour), one_shot=True)
    assert used["memory_stats"]["usage"] < 32 << 20
    assert rooms.get(neighbour).state.running
    await the_engine_works(attacker)


async def test_a_disk_hog_is_reported(attacker: Attacker) -> None:
    rooms = attacker.rooms
    made = await rooms.start("sh", "-c", "dd if=/dev/zero of=/hog bs=1M count=32 2>/dev/null; sleep 1000")
    await eventually(lambda: size(attacker, made) >= 32 << 20, "the hog")
    own, _ = await rooms.containers.files.sizes(rooms.get(made))
    assert own >= 32 << 20


def size(attacker: Attacker, ref: str) -> int:
    hog = attacker.rooms.config.data_root / "containers" / ref / "upper/hog"
    return hog.stat().st_size if hog.exists() else 0


async def test_ten_thousand_lines_a_millisecond(attacker: Attacker) -> None:
    """Those who write without end wait for the disk; others are served meanwhile, and the log stays in its bounds."""
    rooms = attacker.rooms
    settings = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    loud = [await rooms.start(*words, host=attacker.host(LogConfig=settings)) for words in (["yes"], ["yes", '"\\'])]
    await eventually(lambda: all(lines(attacker, each) > 1000 for each in loud), "the noise")
    await the_engine_works(attacker)
    for each in loud:
        sizes = [path.stat().st_size for path in Path(rooms.get(each).log_path).parent.glob("*-json.log*")]
        assert len(sizes) <= 2
        assert max(sizes) <= 1 << 20
        last, _ = await rooms.said(each, tail=3)
        assert 1 <= len(last.splitlines()) <= 3
    for each in loud:
        await asyncio.wait_for(rooms.containers.stop(each, timeout=0), 20)


def lines(attacker: Attacker, ref: str) -> int:
    try:
        return Path(attacker.rooms.get(ref).log_path).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


async def test_a_flood_of_descriptors(attacker: Attacker) -> None:
    """In a container of its own, and as many of the engine's as it takes executions to ask for."""
    code = """
import os
held = []
try:
    while True:
        held += os.pipe()
except OSError as error:
    print(len(held) > 100, error.errno, flush=True)
input()
"""
    made = await attacker.start(
        code, Ulimits=[{"Name": "nofile", "Soft": 4096, "Hard": 4096}], config={"open_stdin": True}
    )
    rooms = attacker.rooms
    await eventually(lambda: lines(attacker, made), "the flood")
    assert (await rooms.said(made))[0] == b"True 24\n"
    await the_engine_works(attacker)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        session = await rooms.containers.streams.attach(rooms.get(made))
        await session.close()
        assert (await rooms.exec(made, "/bin/true"))[0] == 0
    assert len(os.listdir("/proc/self/fd")) <= before + 2


async def test_many_who_attach_and_never_read(attacker: Attacker) -> None:
    rooms = attacker.rooms
    made = await rooms.start("sh", "-c", "read x; seq 1 200000", open_stdin=True)
    sessions = [await rooms.containers.streams.attach(rooms.get(made), stdin=True) for _ in range(10)]
    await sessions[0].write(b"go\n")
    await the_engine_works(attacker)
    for session in sessions:
        await session.close()
    assert (await asyncio.wait_for(rooms.containers.wait(made), 30)).code == 0
