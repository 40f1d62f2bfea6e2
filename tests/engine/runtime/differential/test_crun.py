"""The same OCI spec run by ours and by crun gives the same view from inside; where not, the reason stands here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.runtime.launcher import Launcher
from tests import needs
from tests.engine.containers.harness import make_root
from tests.engine.runtime.differential.cases import CASES, default
from tests.engine.runtime.differential.pairs import Crun, Ours

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.asyncio(loop_scope="module"),
    needs.programs("crun"),
]

# A difference, written `path: ours | crun`, that matches → why it is one.
REASONS = {
    r"mounts\..*: \['tmpfs', .*,ro', 'ro(,.*)?'\] \| \['tmpfs', .*,ro', 'rw(,.*)?'\]": (
        "crun makes a tmpfs read-only as a mount alone, ours the file system as well"
    ),
    r"mounts\./sys: .*'ro'\] \| .*'rw'\]": "the same, of sysfs",
    r"writing\./sys/class/net/lo/mtu: EROFS \| EACCES": "the same: the file system answers before the file's mode",
    r"mounts\..*: \['devtmpfs', 'noexec,nosuid,relatime,ro', .*\] \| \['devtmpfs', 'relatime,ro', .*\]": (
        "what masks a file can't be executed in ours"
    ),
    r"mounts\..*: \['proc', 'nodev,noexec,nosuid,relatime,ro', 'rw'\] \| \['proc', 'relatime,ro', 'rw'\]": (
        "crun loses the flags of what it binds read-only over itself"
    ),
    r"mounts\./sys/fs/cgroup: \['tmpfs', .*\] \| \['tmpfs', '.*,rw', .*\]": (
        "where the spec says ro, crun means the hierarchies in it alone; and its tmpfs is larger"
    ),
    r"mounts\./sys/fs/cgroup/systemd: None \| .*": "it has no controller: ours puts nobody there, and shows nothing",
    r"devices\./dev/mqueue: .* 65534, 65534, .* \| .* 0, 0, .*": (
        "ours is born with the namespace before it knows any ids, which saves a start the wait; all may use it (1777)"
    ),
    r"(reading|writing)\./(root|bin/busybox|etc/passwd): (folder of 0|writable) \| EACCES": (
        "crun shows a user namespace the layers with the host's ids, ours with its own"
    ),
    r"mounts\./shared.*: \[.*,shared', .*\] \| \[.*\]": (
        "crun takes back with the root's propagation what a bind is to share with the host"
    ),
    r"(?s)(opening\./tmp/node-1-1-5|texts\./sys/fs/cgroup/devices/devices.list): .* \| (opened|.*c 1:5 rwm)": (
        "crun allows its default devices after all rules, also those that the spec denies"
    ),
}

USED: set[str] = set()
RAN: set[str] = set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Ours, Crun]]:
    needs.root()
    folder = tmp_path_factory.mktemp("both")
    folder.chmod(0o755)
    layer = make_root(folder / "layer")
    (layer / "dev").mkdir()
    (layer / "link").symlink_to("home/alice")
    (layer / "absolute").symlink_to("/home/alice")
    exec_root = Path(tempfile.mkdtemp(prefix="swx"))
    group = f"/shipway-crun-{exec_root.name}"
    launcher = await Launcher.connect(exec_root, f"/shipway/test-{exec_root.name}")
    yield Ours(launcher, layer, folder / "ours"), Crun(layer, folder / "crun", group)
    await launcher.shutdown()
    shutil.rmtree(exec_root)
    for root in Path("/sys/fs/cgroup").iterdir():
        if (root / group[1:]).is_dir():
            (root / group[1:]).rmdir()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    needs.root()
    made = tmp_path_factory.mktemp("bound")
    (made / "file").write_text("x")
    (made / "sub/inner").mkdir(parents=True)
    (made / "sub/tmpfs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", made / "sub/tmpfs"], check=True)
    yield made
    subprocess.run(["umount", made / "sub/tmpfs"], check=True)


@pytest.mark.parametrize("name", CASES)
async def test_the_same_view(both: tuple[Ours, Crun], folder: Path, name: str) -> None:
    spec = default()
    CASES[name](spec, folder)
    label = re.sub(r"\W", "-", name)
    ours, crun = both
    mine, theirs = await ours.see(label, spec), crun.see(label, spec)
    found = differences("", plain(mine), plain(theirs))
    reasons = {each: {reason for reason in REASONS if re.fullmatch(reason, each)} for each in found}
    USED.update(*reasons.values())
    RAN.add(name)
    assert not [each for each, why in reasons.items() if not why]


async def test_every_reason_is_still_one() -> None:
    assert CASES.keys() != RAN or REASONS.keys() == USED


def plain(seen: dict[str, Any]) -> dict[str, Any]:
    """Without what can't be the same: inodes, where the root's layers are, ids of processes."""
    seen["namespaces"] = {
        name: "the host's" if aim == os.readlink(f"/proc/self/ns/{name}") else "its own"
        for name, aim in seen["namespaces"].items()
    }
    seen["mounts"] = {point: [kind, flags, options] for point, kind, flags, options in seen["mounts"]}
    for mount in seen["mounts"].values():
        if mount[0] == "overlay":
            mount[2] = ""
    del seen["status"]["NSpid"]
    if seen["session"][0] != 1:
        seen["session"] = [number - seen["session"][0] for number in seen["session"]]
    return seen


def differences(path: str, mine: Any, theirs: Any) -> list[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted(mine.keys() | theirs.keys())
            for line in differences(f"{path}.{key}".lstrip("."), mine.get(key), theirs.get(key))
        ]
    return [] if mine == theirs else [f"{path}: {mine} | {theirs}"]
