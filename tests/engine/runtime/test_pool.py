"""Containers from the pool: no different from those that are born when they are asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from engine.runtime.launcher import Launcher
from engine.runtime.spec import IDMapping, Linux, LinuxNamespace, LinuxPids, LinuxResources
from engine.runtime.zygote.pool import SIZE
from tests.engine.runtime.boxes import NAMESPACES, Box, make_spec

pytestmark = pytest.mark.kernel

_SEEN = (
    "cat /proc/self/cgroup; for n in cgroup ipc mnt net pid user uts; do stat -L -c %i /proc/self/ns/$n; done;"
    " id; grep -E 'Cap|Seccomp|NoNewPrivs|Groups' /proc/self/status; ls /proc/self/fd; cat /proc/self/uid_map"
)


def _linux(pids: int | None = None) -> Linux:
    kinds = [LinuxNamespace(kind) for kind in (*NAMESPACES, "user")]
    mapping = [IDMapping(0, 1_000_000, 65536)]
    linux = Linux(namespaces=kinds, uid_mappings=mapping, gid_mappings=mapping)
    if pids is not None:
        linux.resources = LinuxResources(pids=LinuxPids(pids))
    return linux


def _waiting(exec_root: Path) -> list[psutil.Process]:
    """The zygote's children that are nobody's container yet."""
    zygotes = [each for each in psutil.process_iter(["cmdline"]) if str(exec_root) in (each.info["cmdline"] or [])]
    parents = {each.pid for each in zygotes}
    return [each for each in zygotes if each.ppid() in parents]


def _filled(exec_root: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + 10
    while len(found := _waiting(exec_root)) < SIZE:
        assert time.monotonic() < deadline, f"{len(found)} of {SIZE} wait"
        time.sleep(0.01)
    return found


def _without_numbers(seen: str) -> list[str]:
    """What is the same in any two containers: not the namespaces' own numbers."""
    return [line for line in seen.splitlines() if not line.isdigit() or len(line) < 8]


async def test_one_from_the_pool_sees_what_one_born_for_it_sees(box: Box, exec_root: Path) -> None:
    assert _waiting(exec_root) == []
    exited, born = await box.run(make_spec("sh", "-c", _SEEN, linux=_linux()), "born")
    assert exited.code == 0
    pids = {each.pid for each in _filled(exec_root)}
    pid = await box.create("pooled", make_spec("sh", "-c", _SEEN, linux=_linux()))
    assert pid in pids
    await box.launcher.start("pooled")
    await box.launcher.wait("pooled")
    await box.launcher.delete("pooled")
    pooled = "".join(entry["log"] for entry in box.entries("pooled"))
    assert _without_numbers(pooled) == _without_numbers(born)
    namespaces = [line for line in pooled.splitlines() if line.isdigit() and len(line) >= 8]
    ours = {str(os.stat(f"/proc/self/ns/{kind}").st_ino) for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user")}
    assert len(namespaces) == 7
    assert not ours & set(namespaces)


async def test_its_limits_hold_and_its_group_is_its_own(box: Box, exec_root: Path) -> None:
    await box.run(make_spec("true", linux=_linux()), "first")
    _filled(exec_root)
    exited, seen = await box.run(make_spec("sh", "-c", "(sleep 1 & sleep 1 & sleep 1 &) 2>&1", linux=_linux(2)), "few")
    assert "Resource temporarily unavailable" in seen or exited.code != 0


async def test_one_that_was_killed_meanwhile_is_passed_over(box: Box, exec_root: Path) -> None:
    await box.run(make_spec("true", linux=_linux()), "first")
    killed = _filled(exec_root)
    for each in killed:
        os.kill(each.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(each.status() != psutil.STATUS_ZOMBIE for each in killed):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    exited, seen = await box.run(make_spec("echo", "well", linux=_linux()), "second")
    assert (exited.code, seen) == (0, "well\n")


async def test_nobody_waits_after_the_end(layer: Path, exec_root: Path, tmp_path: Path) -> None:
    launcher = await Launcher.connect(exec_root, f"/shipway/test-{exec_root.name}")
    await Box(launcher, layer, tmp_path).run(make_spec("true", linux=_linux()), "first")
    waiting = _filled(exec_root)
    await launcher.shutdown()
    _, alive = psutil.wait_procs(waiting, timeout=5)
    assert alive == []


async def test_nobody_outlives_a_killed_zygote(layer: Path, exec_root: Path, tmp_path: Path) -> None:
    launcher = await Launcher.connect(exec_root, f"/shipway/test-{exec_root.name}")
    await Box(launcher, layer, tmp_path).run(make_spec("true", linux=_linux()), "first")
    waiting = _filled(exec_root)
    os.kill(waiting[0].ppid(), signal.SIGKILL)
    _, alive = psutil.wait_procs(waiting, timeout=5)
    assert alive == []
    await launcher.close()
    launcher = await Launcher.connect(exec_root, f"/shipway/test-{exec_root.name}")
    await launcher.shutdown()
