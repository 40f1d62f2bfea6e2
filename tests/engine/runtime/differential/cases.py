"""The specs that both runtimes are given: Docker's default one, and what a wish each makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from engine.containers import capabilities, idranges, specs
from engine.containers.hostconfig import HostConfig
from engine.containers.model import ContainerConfig
from engine.containers.users import ResolvedUser
from engine.runtime.spec import (
    Capabilities,
    LinuxCPU,
    LinuxDevice,
    LinuxDeviceCgroup,
    LinuxMemory,
    LinuxNamespace,
    LinuxPids,
    LinuxSeccomp,
    LinuxSeccompArg,
    LinuxSyscall,
    Mount,
    Rlimit,
    Spec,
    User,
)

SHIFT = 1_000_000
Change = Callable[[Spec, Path], None]
CASES: dict[str, Change] = {}


def case(change: Change) -> Change:
    """The folder is the host's, to be mounted: in it `file`, `sub/inner` and a mounted `sub/tmpfs`."""
    CASES[change.__name__.replace("_", " ")] = change
    return change


def default(host_config: HostConfig | None = None) -> Spec:
    return specs.build(
        ContainerConfig(),
        host_config or HostConfig(network_mode="none"),
        ["one", "two words"],
        [],
        specs.Surroundings(container_id="c" * 64, hostname="box", user=ResolvedUser(home="/root"), cgroups_path=""),
    )


def mount(spec: Spec, target: str, source: Path | str, *options: str, kind: str = "bind") -> None:
    spec.mounts.append(Mount(target, kind, str(source), list(options)))


def without(spec: Spec, *kinds: str) -> None:
    spec.linux.namespaces = [each for each in spec.linux.namespaces if each.type not in kinds]
    if "network" in kinds:
        spec.linux.sysctl = {name: value for name, value in spec.linux.sysctl.items() if not name.startswith("net.")}


@case
def docker_s_default(_: Spec, __: Path) -> None: ...


@case
def a_user_namespace(spec: Spec, _: Path) -> None:
    spec.linux.namespaces.append(LinuxNamespace("user"))
    spec.linux.uid_mappings = spec.linux.gid_mappings = idranges.mappings(SHIFT)
    spec.linux.sysctl["net.ipv4.ping_group_range"] = f"0 {idranges.SIZE - 1}"


@case
def another_user(spec: Spec, _: Path) -> None:
    spec.process.user = User(uid=1000, gid=1001, additional_gids=[5, 10])


@case
def another_user_with_capabilities(spec: Spec, _: Path) -> None:
    kept = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
    spec.process.user = User(uid=1000, gid=1001)
    spec.process.capabilities = Capabilities(kept, kept, kept, kept, ["CAP_NET_BIND_SERVICE"])


@case
def a_umask(spec: Spec, _: Path) -> None:
    spec.process.user = User(umask=0o077)


@case
def no_capabilities(spec: Spec, _: Path) -> None:
    spec.process.capabilities = Capabilities()


@case
def one_capability(spec: Spec, _: Path) -> None:
    spec.process.capabilities = Capabilities(["CAP_KILL"], ["CAP_KILL"], [], ["CAP_KILL"], [])


@case
def administration(spec: Spec, _: Path) -> None:
    kept = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]
    spec.process.capabilities = Capabilities(kept, kept, [], kept, [])


@case
def no_new_privileges(spec: Spec, _: Path) -> None:
    spec.process.no_new_privileges = True


@case
def no_filter(spec: Spec, _: Path) -> None:
    spec.linux.seccomp = None


@case
def a_filter_that_denies(spec: Spec, _: Path) -> None:
    spec.linux.seccomp = LinuxSeccomp(
        "SCMP_ACT_ALLOW",
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        syscalls=[
            LinuxSyscall(["mkdir", "mkdirat", "chroot"], "SCMP_ACT_ERRNO", 5),
            LinuxSyscall(["keyctl"], "SCMP_ACT_ERRNO"),
            LinuxSyscall(["swapon"], "SCMP_ACT_KILL_PROCESS"),
            LinuxSyscall(["reboot"], "SCMP_ACT_LOG"),
        ],
    )


@case
def a_filter_of_arguments(spec: Spec, _: Path) -> None:
    def rule(name: str, index: int, value: int, op: str, two: int = 0) -> LinuxSyscall:
        return LinuxSyscall([name], "SCMP_ACT_ERRNO", 77, [LinuxSeccompArg(index, value, op, two)])

    spec.linux.seccomp = LinuxSeccomp(
        "SCMP_ACT_ALLOW",
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        syscalls=[
            rule("personality", 0, 0x20000, "SCMP_CMP_EQ"),
            rule("socket", 0, 5, "SCMP_CMP_LT"),
            rule("setns", 1, 0, "SCMP_CMP_NE"),
            rule("perf_event_open", 2, 1 << 40, "SCMP_CMP_GT"),
            rule("userfaultfd", 0, 1 << 20, "SCMP_CMP_MASKED_EQ", 1 << 20),
        ],
    )


@case
def a_filter_and_no_new_privileges(spec: Spec, _: Path) -> None:
    spec.process.no_new_privileges = True
    spec.linux.seccomp = LinuxSeccomp(
        "SCMP_ACT_ALLOW",
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        syscalls=[LinuxSyscall(["seccomp", "mknod"], "SCMP_ACT_ERRNO", 9)],
    )


@case
def a_read_only_root(spec: Spec, _: Path) -> None:
    spec.root.readonly = True


@case
def nothing_masked(spec: Spec, _: Path) -> None:
    spec.linux.masked_paths = spec.linux.readonly_paths = []


@case
def other_paths_masked(spec: Spec, _: Path) -> None:
    spec.linux.masked_paths = ["/proc/uptime", "/sys/class", "/etc/passwd", "/home", "/nowhere", "/proc/nothing"]
    spec.linux.readonly_paths = ["/tmp", "/bin", "/proc/version", "/nowhere"]


@case
def limits(spec: Spec, _: Path) -> None:
    spec.process.rlimits = [
        Rlimit("RLIMIT_NOFILE", 100, 50),
        Rlimit("RLIMIT_CORE", 0, 0),
        Rlimit("RLIMIT_NPROC", 777, 555),
        Rlimit("RLIMIT_STACK", 8 << 20, 4 << 20),
    ]


@case
def system_settings(spec: Spec, _: Path) -> None:
    spec.linux.sysctl = {"net.core.somaxconn": "77", "kernel.shmmax": "123456", "net.ipv4.ip_forward": "1"}


@case
def a_domain(spec: Spec, _: Path) -> None:
    spec.hostname, spec.linux.sysctl = "other", {"kernel.domainname": "example.org"}


@case
def environment_and_folder(spec: Spec, _: Path) -> None:
    spec.process.env = [*spec.process.env, "EMPTY=", "SPACES=a b  c", "EQUALS=a=b", "TWICE=1", "TWICE=2", "LINES=a\nb"]
    spec.process.cwd = "/home/alice"


@case
def temporary_file_systems(spec: Spec, _: Path) -> None:
    mount(spec, "/t", "tmpfs", "size=1m", "mode=0700", "noexec", kind="tmpfs")
    mount(spec, "/deep/in/the/root", "tmpfs", "nosuid", "nodev", "ro", kind="tmpfs")


@case
def binds(spec: Spec, folder: Path) -> None:
    mount(spec, "/plain", folder, "rbind", "rprivate")
    mount(spec, "/once", folder, "bind")
    mount(spec, "/strict", folder, "rbind", "ro", "nosuid", "nodev", "noexec")
    mount(spec, "/new/file", folder / "file", "bind", "ro")


@case
def binds_over_binds(spec: Spec, folder: Path) -> None:
    mount(spec, "/in", folder, "bind")
    mount(spec, "/in/sub", folder / "sub", "bind", "ro")
    mount(spec, "/in/file", "/etc/hostname", "bind")


@case
def times_of_access(spec: Spec, folder: Path) -> None:
    mount(spec, "/noatime", folder, "bind", "noatime")
    mount(spec, "/nodiratime", folder, "bind", "nodiratime")
    mount(spec, "/strictatime", "tmpfs", "strictatime", kind="tmpfs")
    mount(spec, "/relatime", "tmpfs", "relatime", "sync", "dirsync", kind="tmpfs")


@case
def propagation(spec: Spec, folder: Path) -> None:
    mount(spec, "/slave", folder, "rbind", "rslave")
    mount(spec, "/shared", folder, "rbind", "rshared")
    mount(spec, "/private", folder, "rbind", "private")


@case
def the_root_s_propagation(spec: Spec, _: Path) -> None:
    spec.linux.rootfs_propagation = "private"


@case
def mounts_through_links(spec: Spec, folder: Path) -> None:
    mount(spec, "/link/in", folder, "bind")
    mount(spec, "/absolute/in", folder, "bind")


@case
def a_device(spec: Spec, _: Path) -> None:
    spec.linux.devices = [
        LinuxDevice("/dev/mine", "c", 1, 5, 0o640, 0, 5),
        LinuxDevice("/dev/deep/fuse", "c", 10, 229, 0o666),
        LinuxDevice("/dev/fifo", "p", 0, 0, 0o600),
    ]


@case
def rules_for_devices(spec: Spec, _: Path) -> None:
    assert spec.linux.resources is not None
    spec.linux.resources.devices += [
        LinuxDeviceCgroup(True, "c", 1, 11, "rwm"),
        LinuxDeviceCgroup(True, "b", 7, None, "r"),
        LinuxDeviceCgroup(False, "c", 1, 5, "rwm"),
    ]


@case
def every_device(spec: Spec, _: Path) -> None:
    assert spec.linux.resources is not None
    spec.linux.resources.devices = [LinuxDeviceCgroup(True, access="rwm")]


@case
def resources(spec: Spec, _: Path) -> None:
    assert spec.linux.resources is not None
    spec.linux.resources.memory = LinuxMemory(limit=256 << 20, swap=256 << 20, reservation=64 << 20)
    spec.linux.resources.cpu = LinuxCPU(shares=512, quota=50_000, period=100_000, cpus="0")
    spec.linux.resources.pids = LinuxPids(100)


@case
def a_score_for_the_end_of_memory(spec: Spec, _: Path) -> None:
    spec.process.oom_score_adj = 500


@case
def the_host_s_network(spec: Spec, _: Path) -> None:
    without(spec, "network")


@case
def the_host_s_processes(spec: Spec, _: Path) -> None:
    without(spec, "pid")


@case
def the_host_s_ipc_and_names(spec: Spec, _: Path) -> None:
    without(spec, "ipc", "uts")
    spec.hostname = ""


@case
def the_host_s_control_groups(spec: Spec, _: Path) -> None:
    without(spec, "cgroup")


@case
def namespaces_by_their_paths(spec: Spec, _: Path) -> None:
    without(spec, "network", "ipc", "uts")
    spec.hostname = ""
    spec.linux.namespaces += [
        LinuxNamespace(kind, f"/proc/{os.getpid()}/ns/{file}")
        for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))
    ]


@case
def few_mounts(spec: Spec, _: Path) -> None:
    spec.mounts = [each for each in spec.mounts if each.destination == "/proc"]
    spec.linux.masked_paths = ["/proc/kcore"]


@case
def privileged(spec: Spec, _: Path) -> None:
    wide = default(HostConfig(network_mode="none", privileged=True))
    # crun fails where it lacks one of them itself; ours gives what there is.
    kept = [name for name in capabilities.ALL if name in capabilities.available()]
    spec.process.capabilities, spec.linux.seccomp = Capabilities(kept, kept, [], kept, []), None
    spec.linux.masked_paths = spec.linux.readonly_paths = []
    spec.linux.resources, spec.mounts = wide.linux.resources, wide.mounts
