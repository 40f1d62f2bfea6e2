from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.runtime.spec import IDMapping, Linux, LinuxNamespace, Mount, Process, Spec, User
from tests.engine.runtime.boxes import MOUNTS, Box, make_spec

pytestmark = pytest.mark.kernel

SHIFT = 1_000_000


def shifted(*args: str, **process: object) -> Spec:
    namespaces = [LinuxNamespace(kind) for kind in ("user", "pid", "network", "ipc", "uts", "mount", "cgroup")]
    ids = [IDMapping(0, SHIFT, 65536)]
    spec = make_spec(*args, linux=Linux(namespaces=namespaces, uid_mappings=ids, gid_mappings=ids), **process)
    spec.mounts = [*MOUNTS, Mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro"])]
    return spec


async def test_root_inside_is_nobody_outside(box: Box) -> None:
    pid = await box.create("one", shifted("sleep", "100"))
    await box.launcher.start("one")
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{SHIFT}\t" in status
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")


async def test_layers_and_what_is_written_have_the_containers_ids(box: Box, layer: Path, tmp_path: Path) -> None:
    command = "id -u; stat -c %u /bin/sh; echo x > /tmp/x; mkdir /new; stat -c %u /tmp/x /new; touch /bin/true; echo $?"
    exited, seen = await box.run(shifted("sh", "-c", command))
    assert (exited.code, seen.split()) == (0, ["0", "0", "0", "0", "0"])
    upper = tmp_path / "one" / "upper"
    assert (upper / "tmp" / "x").stat().st_uid == SHIFT
    assert (layer / "bin" / "sh").stat().st_uid == 0


async def test_another_user_owns_what_it_writes(box: Box, tmp_path: Path) -> None:
    command = "id -u; echo x > /tmp/x; echo through > /dev/stdout"
    _, seen = await box.run(shifted("sh", "-c", command, user=User(uid=1000, gid=1000)))
    assert seen.split() == ["1000", "through"]
    assert (tmp_path / "one" / "upper" / "tmp" / "x").stat().st_uid == SHIFT + 1000


async def test_devices_and_control_groups_are_there(box: Box) -> None:
    command = "echo x > /dev/null && head -c 4 /dev/zero | wc -c; ls /sys/fs/cgroup | wc -l; ls /sys/class/net"
    _, seen = await box.run(shifted("sh", "-c", command))
    words = seen.split()
    assert words[0] == "4"
    assert int(words[1]) > 0
    assert words[2:] == ["lo"]


async def test_a_bind_shows_the_hosts_ids_or_mapped_ones(box: Box, tmp_path: Path) -> None:
    folder = tmp_path / "closed" / "shared"
    folder.mkdir(parents=True)
    (folder / "x").write_text("x")
    (tmp_path / "closed").chmod(0o700)
    spec = shifted("sh", "-c", "stat -c %u /plain/x /mapped/x; echo y > /mapped/y")
    spec.mounts += [
        Mount("/plain", "bind", str(folder), ["rbind"]),
        Mount("/mapped", "bind", str(folder), ["rbind", "idmap"]),
    ]
    _, seen = await box.run(spec)
    assert seen.split() == ["65534", "0"]
    assert (folder / "y").stat().st_uid == 0


async def test_an_exec_enters_the_user_namespace(box: Box) -> None:
    await box.create("one", shifted("sleep", "100"))
    await box.launcher.start("one")
    read, write = os.pipe()
    process = Process(["sh", "-c", "id -u; cat /proc/self/uid_map"], env=["PATH=/bin"])
    await box.launcher.exec("one", "e", process, stdout=write)
    os.close(write)
    assert (await box.launcher.wait("one", "e")).code == 0
    with os.fdopen(read) as output:
        assert output.read().split() == ["0", "0", str(SHIFT), "65536"]


async def test_a_terminal(box: Box) -> None:
    await box.create("one", shifted("sh", "-c", "tty; test -c /dev/console && echo console", terminal=True))
    await box.launcher.start("one")
    assert (await box.launcher.wait("one")).code == 0
    assert "".join(entry["log"] for entry in box.entries()).split() == ["/dev/pts/0", "console"]


@pytest.mark.parametrize("command", ["mount -t tmpfs none /tmp && mount -t sysfs none /tmp; mknod /tmp/sda b 8 0"])
async def test_being_root_there_gives_nothing_here(box: Box, command: str) -> None:
    _, seen = await box.run(shifted("sh", "-c", command))
    assert "not permitted" in seen or "denied" in seen


async def test_a_command_that_reads_the_hosts_files_through_a_second_namespace_fails(box: Box) -> None:
    exited, _ = await box.run(shifted("sh", "-c", "cat /proc/1/environ > /dev/null; cat /proc/kcore"))
    assert exited.code != 0
