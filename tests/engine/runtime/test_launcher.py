from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from engine.errors import Conflict, NotFound, SystemFailure
from engine.kernel import libc
from engine.kernel.cgroup.host import groups_below, hierarchies
from engine.runtime.launcher import ExecFailed, Launcher, LogConfig
from engine.runtime.spec import (
    ConsoleSize,
    IDMapping,
    Linux,
    LinuxMemory,
    LinuxNamespace,
    LinuxPids,
    LinuxResources,
    LinuxSeccomp,
    LinuxSyscall,
    Mount,
    Process,
    Rlimit,
    User,
)
from tests.engine.runtime.boxes import MOUNTS, NAMESPACES, Box, make_spec

pytestmark = pytest.mark.kernel


async def test_the_exit_status_and_both_streams_are_kept(box: Box) -> None:
    exited, _ = await box.run(make_spec("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert exited.code == 3
    assert exited.started_at <= exited.finished_at
    assert {(entry["stream"], entry["log"]) for entry in box.entries()} == {
        ("stdout", "out\n"),
        ("stderr", "err\n"),
    }


async def test_the_namespaces_are_its_own(box: Box) -> None:
    _, seen = await box.run(make_spec("sh", "-c", "hostname; ps; ls /sys/class/net; echo $$"))
    lines = seen.split("\n")
    assert lines[0] == "box"
    assert "lo" in lines
    assert lines[-2] == "1"


async def test_nothing_of_the_zygotes_is_open_inside(box: Box) -> None:
    _, seen = await box.run(make_spec("ls", "/proc/self/fd"))
    # 3 is the folder that ls reads.
    assert seen.split() == ["0", "1", "2", "3"]


async def test_user_groups_and_capabilities(box: Box) -> None:
    user = User(uid=1000, gid=1001, additional_gids=[7, 8])
    command = "id -u; id -g; grep -E '^(Groups|CapEff|CapBnd|NoNewPrivs):' /proc/self/status"
    _, seen = await box.run(make_spec("sh", "-c", command, user=user, no_new_privileges=True))
    assert seen.split() == [
        *("1000", "1001", "Groups:", "7", "8"),
        *("CapEff:", f"{0:016x}", "CapBnd:", f"{1 << 0 | 1 << 5:016x}", "NoNewPrivs:", "1"),
    ]


async def test_seccomp_denies_what_the_profile_denies(box: Box) -> None:
    seccomp = LinuxSeccomp("SCMP_ACT_ALLOW", syscalls=[LinuxSyscall(["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", 13)])
    exited, seen = await box.run(make_spec("mkdir", "/tmp/x", linux=Linux(seccomp=seccomp)))
    assert exited.code == 1
    assert "Permission denied" in seen


async def test_masked_and_read_only_paths(box: Box) -> None:
    linux = Linux(masked_paths=["/proc/uptime", "/sys/firmware", "/none"], readonly_paths=["/proc/sys", "/none"])
    command = "cat /proc/uptime; ls /sys/firmware; echo 1 > /proc/sys/kernel/domainname"
    _, seen = await box.run(make_spec("sh", "-c", command, linux=linux))
    assert "Read-only file system" in seen
    assert len(seen.splitlines()) == 1


async def test_a_read_only_root(box: Box) -> None:
    spec = make_spec("sh", "-c", "echo x > /tmp/x")
    spec.root.readonly = True
    exited, seen = await box.run(spec)
    assert exited.code != 0
    assert "Read-only file system" in seen


async def test_binds_are_made_where_they_belong(box: Box, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "file").write_text("of the host\n")
    spec = make_spec("sh", "-c", "echo in > /mnt/deep/x; cat /etc/one; echo no > /etc/one")
    spec.mounts = [
        *MOUNTS,
        Mount("/mnt/deep", "bind", str(tmp_path / "shared"), ["rbind"]),
        Mount("/etc/one", "bind", str(tmp_path / "file"), ["bind", "ro"]),
    ]
    _, seen = await box.run(spec)
    assert seen.startswith("of the host\n")
    assert "Read-only file system" in seen
    assert (tmp_path / "shared" / "x").read_text() == "in\n"


async def test_an_images_link_does_not_lead_a_mount_out(box: Box, layer: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    overlay = box.overlay("one")
    (overlay.upper / "data").symlink_to(outside)
    (tmp_path / "source").mkdir()
    spec = make_spec("sh", "-c", "echo x > /data/in/x")
    spec.mounts = [*MOUNTS, Mount("/data/in", "bind", str(tmp_path / "source"), ["bind"])]
    await box.launcher.create("one", spec, rootfs=overlay, log=box.log("one"))
    await box.launcher.start("one")
    await box.launcher.wait("one")
    await box.launcher.delete("one")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "source" / "x").exists()


@pytest.mark.parametrize(
    ("args", "code"), [(("nope",), 127), (("/tmp",), 126), (("/none/nope",), 127)], ids=["path", "folder", "absent"]
)
async def test_what_cannot_be_executed_says_so(box: Box, args: tuple[str, ...], code: int) -> None:
    with pytest.raises(ExecFailed, match=args[0]) as failed:
        await box.run(make_spec(*args))
    assert failed.value.exit_code == code


async def test_no_command_at_all(box: Box) -> None:
    with pytest.raises(ExecFailed, match="no command to execute"):
        await box.run(make_spec())


async def test_limits_hold_and_an_oom_kill_is_seen(box: Box) -> None:
    resources = LinuxResources(memory=LinuxMemory(limit=16 << 20, swap=16 << 20), pids=LinuxPids(16))
    eats = "x=12345678; while true; do x=$x$x; done"
    exited, _ = await box.run(make_spec("sh", "-c", eats, linux=Linux(resources=resources)))
    assert exited.oom_killed
    assert exited.code == 137


async def test_a_fork_bomb_meets_the_pids_limit(box: Box) -> None:
    resources = LinuxResources(pids=LinuxPids(16))
    bomb = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 100 & done; echo survived"
    exited, _ = await box.run(make_spec("sh", "-c", bomb, linux=Linux(resources=resources)))
    assert exited.code != 0


async def test_an_exec_sees_the_container(box: Box) -> None:
    await box.create("one", make_spec("sleep", "100"))
    await box.launcher.start("one")
    read, write = os.pipe()
    process = Process(["sh", "-c", "hostname; ps; exit 4"], env=["PATH=/bin"])
    await box.launcher.exec("one", "e", process, stdout=write, stderr=write)
    os.close(write)
    exited = await box.launcher.wait("one", "e")
    with os.fdopen(read) as output:
        seen = output.read()
    assert exited.code == 4
    assert seen.startswith("box\n")
    assert "sleep 100" in seen
    with pytest.raises(ExecFailed, match="nope"):
        await box.launcher.exec("one", "f", Process(["nope"], env=["PATH=/bin"]))


async def test_an_exec_with_a_terminal(box: Box) -> None:
    await box.create("one", make_spec("sleep", "100"))
    await box.launcher.start("one")
    process = Process(["stty", "size"], env=["PATH=/bin"], terminal=True, console_size=ConsoleSize(33, 77))
    _, master = await box.launcher.exec("one", "e", process)
    assert master is not None
    assert (await box.launcher.wait("one", "e")).code == 0
    assert os.read(master, 100) == b"33 77\r\n"
    os.close(master)


async def test_what_is_typed_to_a_terminal_arrives(box: Box) -> None:
    await box.create("one", make_spec("sh", "-c", "read x; echo got $x", terminal=True))
    attachment = await box.launcher.attach("one")
    await box.launcher.start("one")
    assert attachment.stdin is not None
    os.write(attachment.stdin, b"hello\n")
    await box.launcher.wait("one")
    with os.fdopen(attachment.stdout, "rb") as output:
        assert output.read() == b"hello\r\ngot hello\r\n"
    for fd in (attachment.stdin, attachment.stderr):
        if fd is not None:
            os.close(fd)


async def test_stdin_ends_when_it_is_closed(box: Box) -> None:
    await box.create("one", make_spec("cat"), open_stdin=True)
    attachment = await box.launcher.attach("one")
    await box.launcher.start("one")
    assert attachment.stdin is not None
    os.write(attachment.stdin, b"through")
    os.close(attachment.stdin)
    await box.launcher.close_stdin("one")
    assert (await box.launcher.wait("one")).code == 0
    assert os.read(attachment.stdout, 100) == b"through"
    os.close(attachment.stdout)
    assert attachment.stderr is not None
    os.close(attachment.stderr)


async def test_a_paused_container_does_not_run(box: Box) -> None:
    await box.create("one", make_spec("sleep", "100"))
    await box.launcher.start("one")
    await box.launcher.pause("one")
    assert [state.status for state in await box.launcher.list()] == ["paused"]
    await box.launcher.resume("one")
    assert [state.status for state in await box.launcher.list()] == ["running"]
    assert (await box.launcher.stats("one"))["pids"]["current"] == 1


async def test_containers_outlive_their_daemon(layer: Path, tmp_path: Path, exec_root: Path) -> None:
    parent = f"/shipway/test-{exec_root.name}"
    box = Box(await Launcher.connect(exec_root, parent), layer, tmp_path)
    await box.create("stays", make_spec("sleep", "100"))
    await box.create("ends", make_spec("sh", "-c", "read x; exit 9"), open_stdin=True)
    for name in ("stays", "ends"):
        await box.launcher.start(name)
    attachment = await box.launcher.attach("ends")
    await box.launcher.close()
    assert attachment.stdin is not None
    os.write(attachment.stdin, b"\n")
    attachment.close()
    again = await Launcher.connect(exec_root, parent)
    try:
        assert (await again.wait("ends")).code == 9
        assert {(state.id, state.status) for state in await again.list()} == {("stays", "running"), ("ends", "stopped")}
        await again.kill("stays", signal.SIGKILL)
        assert (await again.wait("stays")).code == 137
    finally:
        await again.shutdown()


async def test_what_a_dead_zygote_left_is_reclaimed(layer: Path, tmp_path: Path, exec_root: Path) -> None:
    parent = f"/shipway/test-{exec_root.name}"
    box = Box(await Launcher.connect(exec_root, parent), layer, tmp_path)
    pid = await box.create("one", make_spec("sleep", "100"))
    await box.launcher.start("one")
    zygote = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(zygote, signal.SIGKILL)
    with pytest.raises(SystemFailure, match="has died"):
        await box.launcher.wait("one")
    await box.launcher.close()
    again = await Launcher.connect(exec_root, parent)
    try:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert groups_below(parent) == []
        assert await again.list() == []
    finally:
        await again.shutdown()


async def test_a_taken_id_is_refused(box: Box) -> None:
    await box.create("one", make_spec("sleep", "100"))
    with pytest.raises(Conflict, match="exists"):
        await box.launcher.create("one", make_spec("true"), rootfs=None, log=None)


def test_mappings_have_the_specifications_names() -> None:
    from engine.runtime.spec import decode, encode

    spec = make_spec("true", linux=Linux(uid_mappings=[IDMapping(0, 100000, 65536)]))
    plain = json.loads(encode(spec))
    assert plain["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert decode(encode(spec)) == spec


async def test_a_container_that_is_to_start_at_once_does_or_says_why_not(box: Box) -> None:
    spec = make_spec("sh", "-c", "echo here; exit 3")
    pid = await box.launcher.create("one", spec, rootfs=box.overlay("one"), log=box.log("one"), start=True)
    assert pid > 0
    assert (await box.launcher.wait("one")).code == 3
    assert [entry["log"] for entry in box.entries()] == ["here\n"]
    await box.launcher.delete("one")

    with pytest.raises(ExecFailed, match="not found"):
        await box.launcher.create("two", make_spec("nosuch"), rootfs=box.overlay("two"), log=None, start=True)
    await box.launcher.delete("two")
    assert await box.launcher.list() == []


async def test_what_was_called_off_while_it_was_made_can_be_deleted(box: Box) -> None:
    making = asyncio.create_task(box.create("one", make_spec("sleep", "100")))
    await asyncio.sleep(0)  # it has asked
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    await box.launcher.delete("one")
    assert await box.launcher.list() == []


async def test_the_ends_of_executions_are_not_kept_where_they_are_told(box: Box) -> None:
    await box.create("one", make_spec("sleep", "100"))
    await box.launcher.start("one")
    told: asyncio.Queue[tuple[str, str | None, int]] = asyncio.Queue()
    box.launcher.on_exit = lambda id, exec_id, end: told.put_nowait((id, exec_id, end.code))  # noqa: A006
    await box.launcher.exec("one", "two", Process(["sh", "-c", "exit 4"], env=["PATH=/bin"]))
    assert await told.get() == ("one", "two", 4)
    assert box.launcher._exits == {}
    await box.launcher.kill("one", signal.SIGKILL)
    assert (await box.launcher.wait("one")).code == 137
    await box.launcher.delete("one")


async def test_an_attachment_that_was_called_off_holds_nothing(box: Box) -> None:
    await box.create("one", make_spec("true"))
    before = os.listdir("/proc/self/fd")
    attaching = asyncio.create_task(box.launcher.attach("one"))
    await asyncio.sleep(0)  # it has asked
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    await box.launcher.delete("one")
    assert os.listdir("/proc/self/fd") == before


async def test_what_could_not_be_made_is_gone_once_it_is_deleted(box: Box, exec_root: Path) -> None:
    spec = make_spec("true")
    spec.mounts = [*MOUNTS, Mount("/here", "bind", "/nowhere", ["rbind"])]
    making = asyncio.create_task(box.create("one", spec))
    await asyncio.sleep(0)  # it has asked, and the next to ask comes right behind it
    await box.launcher.delete("one")
    assert groups_below(f"/shipway/test-{exec_root.name}") == []
    with pytest.raises(NotFound, match="/nowhere"):
        await making


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_log_that_cant_be_kept_is_told(box: Box, tmp_path: Path, terminal: bool) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(SystemFailure, match="Is a directory"):
            await box.launcher.create(
                "one", make_spec("true", terminal=terminal), rootfs=box.overlay("one"), log=LogConfig(tmp_path)
            )
    await box.launcher.delete("one")
    assert await box.launcher.list() == []


async def test_a_zygote_ends_with_one_that_never_began(layer: Path, tmp_path: Path, exec_root: Path) -> None:
    parent = f"/shipway/test-{exec_root.name}"
    launcher = await Launcher.connect(exec_root, parent)
    box = Box(launcher, layer, tmp_path)
    os.kill(await box.create("one", make_spec("true")), signal.SIGKILL)
    with pytest.raises(SystemFailure, match="was killed"):
        await launcher.start("one")
    await launcher.shutdown()
    assert groups_below(parent) == []


async def test_the_zygote_keeps_none_of_the_hosts_mounts_busy(exec_root: Path, tmp_path: Path) -> None:
    place = tmp_path / "two\u00a0words, a\rcolumn # more"  # what some take for the end of a word, or of a line
    place.mkdir()
    libc.mount("tmpfs", str(place), "tmpfs")
    hierarchies.cache_clear()
    try:
        launcher = await Launcher.connect(exec_root, f"/shipway/test-{exec_root.name}")
        kept = Path(f"/proc/{_zygote(exec_root)}/mountinfo").read_text()
        await launcher.shutdown()
    finally:
        # Which succeeds only if nobody else has it.
        libc.umount(str(place))
    assert str(tmp_path) not in kept
    assert {"/", "/proc", "/sys", "/dev"} <= {line.split()[4] for line in kept.splitlines()}


def _zygote(exec_root: Path) -> int:
    [pid] = [each.pid for each in psutil.process_iter(["cmdline"]) if str(exec_root) in (each.info["cmdline"] or [])]
    return pid


async def test_settings_of_the_hosts_network_are_not_changed(box: Box) -> None:
    linux = Linux(namespaces=[LinuxNamespace(kind) for kind in NAMESPACES if kind != "network"])
    linux.sysctl = {"net.ipv4.ip_unprivileged_port_start": "7"}
    with pytest.raises(SystemFailure, match="no network of its own"):
        await box.run(make_spec("true", linux=linux))
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() != "7\n"


async def test_what_the_engine_ignores_its_containers_do_not(exec_root: Path, layer: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as a shell does to what it starts in the background
    try:
        launcher = await Launcher.connect(exec_root, f"/shipway/test-{exec_root.name}")
        _, seen = await Box(launcher, layer, tmp_path).run(make_spec("grep", "SigIgn", "/proc/self/status"))
        await launcher.shutdown()
    finally:
        signal.signal(signal.SIGQUIT, before)
    assert seen == f"SigIgn:\t{0:016x}\n"


def _open(zygote: int, kind: str) -> int:
    """How many of a process's descriptors are of a kind, `pipe:` say."""
    found = 0
    for fd in Path(f"/proc/{zygote}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(fd).startswith(kind)
    return found


async def _alone(box: Box, exec_root: Path) -> None:
    """Until those that could not be created have ended: the zygote tells nobody of that."""
    async with asyncio.timeout(30):
        while len(groups_below(f"/shipway/test-{exec_root.name}")) > 1:
            await box.launcher.list()


async def test_what_fails_leaves_nothing_open(box: Box, exec_root: Path) -> None:
    zygote = _zygote(exec_root)
    await box.create("stays", make_spec("sleep", "100"))
    await box.launcher.start("stays")
    before = _open(zygote, "pipe:")
    for name in ("one", "two"):
        with pytest.raises(ExecFailed, match="nope"):
            await box.launcher.exec("stays", name, Process(["nope"], env=["PATH=/bin"], terminal=True))
    assert _open(zygote, "/dev/pts/ptmx") == 0

    unknown = make_spec("true", terminal=True, rlimits=[Rlimit("RLIMIT_NONE", 1, 1)])
    with pytest.raises(SystemFailure, match="unknown resource limit"):
        await box.create("three", unknown)
    await _alone(box, exec_root)
    assert _open(zygote, "/dev/pts/ptmx") == 0

    mapping = [IDMapping(0, 1_000_000, 65536)]
    kinds = [LinuxNamespace(kind) for kind in (*NAMESPACES, "user")]
    linux = Linux(namespaces=kinds, uid_mappings=mapping, gid_mappings=mapping)
    with pytest.raises(SystemFailure, match="Invalid argument"):
        await box.create("four", make_spec("true", linux=linux, oom_score_adj=1 << 20))
    assert _open(zygote, "user:") == 0

    absent = Linux(namespaces=[LinuxNamespace("pid", "/none"), LinuxNamespace("mount")])
    with pytest.raises(NotFound, match="/none"):
        await box.create("five", make_spec("true", linux=absent))
    await _alone(box, exec_root)
    assert _open(zygote, "pipe:") == before
