"""One OCI spec, run by ours and by crun, and what a program saw in each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.kernel.syscalls import NUMBERS
from engine.runtime.launcher import Launcher, LogConfig, Overlay
from engine.runtime.spec import Mount, Spec, decode, encode

PYTHON = f"/py/bin/python{sys.version_info.major}.{sys.version_info.minor}"
PROBE = Path(__file__).with_name("probe.py")
LENT = {"/usr": "/usr", "/lib": "/lib", "/lib64": "/lib64", "/py": sys.base_prefix, "/probe.py": str(PROBE)}
ENVIRONMENT = ["PATH=/bin", "PYTHONHOME=/py", "LD_LIBRARY_PATH=/py/lib", "PYTHONDONTWRITEBYTECODE=1"]

READING = (
    *(f"/proc/{name}" for name in ("kcore", "keys", "interrupts", "timer_list", "acpi", "scsi", "uptime", "version")),
    *("/sys/firmware", "/sys/class/net", "/sys/devices/virtual/powercap", "/etc/passwd", "/home/alice/note", "/root"),
)
WRITING = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax"),
    *("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/class/net/lo/mtu"),
    *("/etc/passwd", "/bin/busybox", "/tmp", "/dev/null", "/dev/full"),
)
OPENING = [[1, 1, 3], [1, 1, 5], [1, 1, 11], [1, 5, 1], [1, 10, 229], [0, 254, 0], [0, 7, 0]]
CALLS = {
    "keyctl": [0, -3, 1],
    "bpf": [99, 0, 0],
    "perf_event_open": [0, 0, -1, -1, 0],
    "userfaultfd": [1 << 20],
    "mount": [0, 0, 0, 0, 0],
    "umount2": [0, 0],
    "unshare": [0],
    "setns": [-1, 0],
    "clone3": [0, 0],
    "personality": [0x20000],
    "ptrace": [99, 0, 0, 0],
    "socket": [1, 1, 0],
    "chroot": [0],
    "mkdir": [0, 0],
    "mknod": [0, 0, 0],
    "swapon": [0, 0],
    "reboot": [0, 0, 0, 0],
    "io_uring_setup": [0, 0],
    "sethostname": [0, -1],
    "getpid": [],
    "open_by_handle_at": [-1, 0, 0],
    "sched_setattr": [0, 0, 0],
}
TEXTS = (
    *(f"/proc/self/{name}" for name in ("oom_score_adj", "uid_map", "gid_map", "setgroups", "comm")),
    *(f"/proc/sys/{name}" for name in ("kernel/domainname", "kernel/shmmax", "net/core/somaxconn")),
    *(f"/sys/fs/cgroup/memory/memory.{name}_in_bytes" for name in ("limit", "soft_limit")),
    *(f"/sys/fs/cgroup/{name}" for name in ("pids/pids.max", "cpu/cpu.shares", "cpu/cpu.cfs_quota_us")),
    *("/sys/fs/cgroup/cpuset/cpuset.cpus", "/sys/fs/cgroup/devices/devices.list", "/proc/1/comm"),
)


def question() -> str:
    numbers = NUMBERS[os.uname().machine]
    calls = {name: [numbers[name], *arguments] for name, arguments in CALLS.items() if name in numbers}
    return json.dumps({"reading": READING, "writing": WRITING, "opening": OPENING, "calls": calls, "texts": TEXTS})


def with_probe(spec: Spec) -> Spec:
    """A copy whose program is the probe; the arguments it had follow."""
    copy = decode(encode(spec))
    copy.process.args = [PYTHON, "/probe.py", question(), *copy.process.args]
    copy.process.env = [*ENVIRONMENT, *copy.process.env]
    lent = [Mount(target, "bind", source, ["rbind", "ro"]) for target, source in LENT.items()]
    copy.mounts = [*lent, *copy.mounts]
    return copy


class Ours:
    def __init__(self, launcher: Launcher, layer: Path, folder: Path) -> None:
        self._launcher, self._layer, self._folder = launcher, layer, folder

    async def see(self, name: str, spec: Spec) -> dict[str, Any]:
        spec = with_probe(spec)
        upper, work = self._folder / name / "upper", self._folder / name / "work"
        for each in (upper, work):
            each.mkdir(parents=True)
        log = LogConfig(self._folder / name / "log")
        await self._launcher.create(name, spec, rootfs=Overlay((self._layer,), upper, work), log=log)
        await self._launcher.start(name)
        code = (await self._launcher.wait(name)).code
        await self._launcher.delete(name)
        said = [json.loads(line) for line in log.path.read_text().splitlines()]
        out = "".join(entry["log"] for entry in said if entry["stream"] == "stdout")
        errors = "".join(entry["log"] for entry in said if entry["stream"] == "stderr")
        assert code == 0, errors
        seen: dict[str, Any] = json.loads(out)
        return seen


class Crun:
    """In mounts of its own: crun 1.8 refuses hybrid control groups unless the newer tree is hidden from it."""

    _RUN = """
        [ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified
        mount -t overlay none -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
        exec crun --cgroup-manager=cgroupfs --root="$1/state" run -b "$1" "$3"
    """

    def __init__(self, layer: Path, folder: Path, cgroup: str) -> None:
        self._layer, self._folder, self._cgroup = layer, folder, cgroup

    def see(self, name: str, spec: Spec) -> dict[str, Any]:
        plain = json.loads(encode(with_probe(spec)))
        plain["root"]["path"] = "root"
        plain["ociVersion"] = "1.0.2"
        plain["linux"]["cgroupsPath"] = f"{self._cgroup}/{name}"
        bundle = self._folder / name
        for part in ("upper", "work", "root", "state"):
            (bundle / part).mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(plain))
        shown = int(plain["linux"].get("uidMappings", [{"hostID": 0}])[0]["hostID"])
        os.chown(bundle / "upper", shown, shown)
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "--propagation=private",
                "sh",
                "-ec",
                self._RUN,
                "sh",
                str(bundle),
                str(self._layer),
                name,
            ],
            # Not the null device: crun would give the host's to the container's user.
            input="",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shutil.rmtree(bundle, ignore_errors=True)
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen
