"""What this host's kernel offers and lacks, and what to do about it."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.kernel import libc, quota
from engine.kernel.cgroup import devices
from engine.kernel.cgroup.offered import Offered, offered

_OLDEST = (5, 11)
_IDMAPPED_OVERLAY = (5, 19)
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_NETFILTER, _NF_TABLES, _GET_GENERATION, _REQUEST_AND_ACK = 12, 10, 16, 5
_NO_MAPPING = "root in containers is root here"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. Where it is `required` and not `ok`, the engine cannot work here."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def inspect_kernel(data_root: Path = Path("/var/lib/shipway")) -> list[Finding]:
    """Looks, changes nothing. `data_root` is where the engine keeps its files, or will."""
    while not data_root.is_dir():
        data_root = data_root.parent
    return [
        _root(),
        _version(),
        _namespaces(),
        _user_namespaces(),
        _idmapped_mounts(data_root),
        _overlay(),
        *_cgroups(offered()),
        _pressure(),
        _seccomp(),
        _nftables(),
        _quota(data_root),
    ]


def _root() -> Finding:
    is_root = os.geteuid() == 0
    return Finding("root", is_root, "running as root" if is_root else "not root", "run it with sudo")


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _version() -> Finding:
    needed = f"Linux {_OLDEST[0]}.{_OLDEST[1]} or later is needed"
    return Finding("kernel", _release() >= _OLDEST, os.uname().release, needed)


def _namespaces() -> Finding:
    missing = [name for name in _NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")]
    detail = f"missing: {', '.join(missing)}" if missing else ", ".join(_NAMESPACES)
    return Finding("namespaces", not missing, detail, "use a kernel that was built with them")


def _user_namespaces() -> Finding:
    limit = Path("/proc/sys/user/max_user_namespaces")
    most = int(limit.read_text()) if limit.exists() else 0
    remedy = f"sysctl user.max_user_namespaces=100000; until then {_NO_MAPPING}"
    return Finding("user namespaces", most > 0, f"up to {most:,}" if most else "none allowed", remedy, required=False)


def _idmapped_mounts(data_root: Path) -> Finding:
    """Containers of their own ids need layers shown with them: idmapped mounts, below overlayfs since Linux 5.19."""
    name, remedy = "idmapped mounts", f"put the data root on ext4, xfs or btrfs; until then {_NO_MAPPING}"
    if _release() < _IDMAPPED_OVERLAY:
        remedy = f"Linux 5.19 or later has it; until then {_NO_MAPPING}"
        return Finding(name, False, "overlayfs takes no idmapped layers", remedy, required=False)
    try:
        users = _namespace()
    except OSError as error:
        return Finding(name, False, f"could not be tried: {error.strerror}", "run it with sudo", required=False)
    try:
        tree = libc.open_tree(libc.AT_FDCWD, str(data_root), libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC)
        try:
            libc.mount_setattr(tree, attributes=libc.MOUNT_ATTR_IDMAP, userns=users)
        finally:
            os.close(tree)
    except OSError as error:
        return Finding(name, False, f"not of {data_root}: {error.strerror}", remedy, required=False)
    finally:
        os.close(users)
    return Finding(name, True, f"of {data_root}", required=False)


def _namespace() -> int:
    """A user namespace to try with, as a descriptor."""
    pid = libc.clone(libc.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        for file in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{file}").write_text("0 100000 1")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _overlay() -> Finding:
    there = any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines())
    return Finding("overlayfs", there, "there" if there else "not loaded", "modprobe overlay")


def _cgroups(there: Offered) -> Iterator[Finding]:
    missing = [name for name in ("cpu", "memory", "pids") if name not in there.controllers]
    detail = f"{there.mode}: {', '.join(sorted(there.controllers)) or 'no controllers'}"
    yield Finding("cgroups", not missing, detail, f"mount or enable the controllers {', '.join(missing)}")
    yield _lacks(
        "limits",
        {
            "memory": there.memory,
            "reservation": there.reservation,
            "cpu quota": there.cpu_quota,
            "cpu shares": there.cpu_shares,
            "cpuset": there.cpuset,
            "pids": there.pids,
            "disk bandwidth": there.io_limits,
            "disk weight": there.io_weight,
        },
        "containers that ask for them get a warning in their place",
    )
    yield Finding(
        "swap accounting",
        there.swap,
        "there" if there.swap else "memory is limited, swap is not",
        "boot with swapaccount=1 (and cgroup_enable=memory), or turn swap off",
        required=False,
    )
    able = "devices" in there.controllers if there.mode != "v2" else devices.loadable()
    yield Finding("device rules", able, "there" if able else "none", "a kernel with CONFIG_CGROUP_BPF is needed")


def _lacks(name: str, offers: dict[str, bool], remedy: str) -> Finding:
    gone = [offer for offer, there in offers.items() if not there]
    return Finding(name, not gone, f"no {', no '.join(gone)}" if gone else ", ".join(offers), remedy, required=False)


def _pressure() -> Finding:
    there = os.path.exists("/proc/pressure/cpu")
    return Finding("pressure (PSI)", there, "there" if there else "not counted", "boot with psi=1", required=False)


def _seccomp() -> Finding:
    there = os.path.exists("/proc/sys/kernel/seccomp/actions_avail")
    return Finding("seccomp", there, "filters" if there else "no filters", "CONFIG_SECCOMP_FILTER is needed")


def _nftables() -> Finding:
    """Asks for the number of the rules' generation, as nft does first."""
    header = struct.pack("=IHHII", 20, _NF_TABLES << 8 | _GET_GENERATION, _REQUEST_AND_ACK, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
            netlink.send(header + bytes(4))
            answer = netlink.recv(4096)
    except OSError as error:
        return Finding("nftables", False, error.strerror or str(error), "modprobe nf_tables")
    kind = struct.unpack_from("=H", answer, 4)[0]
    number = -struct.unpack_from("=i", answer, 16)[0] if kind == 2 else 0
    return Finding("nftables", number == 0, os.strerror(number) if number else "there", "modprobe nf_tables")


def _quota(data_root: Path) -> Finding:
    there = quota.offered(str(data_root))
    remedy = "mount it (xfs or ext4) with prjquota, where --storage-opt size= is wanted"
    detail = f"of {data_root}" if there else f"not of {data_root}: a container can fill the disk"
    return Finding("disk quotas", there, detail, remedy, required=False)
