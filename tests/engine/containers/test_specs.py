"""Goldens: what a container's configuration makes of the OCI spec. `spec.json` is that of a container nobody said
anything about; each case below says what one wish changes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.containers import specs
from engine.containers.environment import PATH
from engine.containers.hostconfig import HostConfig
from engine.containers.model import ContainerConfig, MountPoint, from_json
from engine.containers.seccomp import default_filter
from engine.containers.users import ResolvedUser
from engine.errors import InvalidInput
from engine.runtime.spec import decode, encode

GOLDEN = Path(__file__).with_name("spec.json")
ROOT = ResolvedUser(home="/root")
SHIFT = 1_879_048_192


def built(
    config: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
    points: tuple[MountPoint, ...] = (),
    user: ResolvedUser = ROOT,
    **around: Any,
) -> dict[str, Any]:
    """The spec as plain JSON."""
    wanted = from_json(ContainerConfig, {"Env": ["A=b"], "WorkingDir": "/srv"} | (config or {}))
    surroundings = specs.Surroundings(
        container_id="c" * 64,
        hostname="box",
        user=user,
        cgroups_path="/shipway/x/c",
        **{"root": Path("/merged"), "hosts": Path("/c/hosts"), "resolv": Path("/c/resolv.conf"), **around},
    )
    spec = specs.build(wanted, from_json(HostConfig, host or {}), ["sleep", "1"], points, surroundings)
    raw = encode(spec)
    assert decode(raw) == spec
    made: dict[str, Any] = json.loads(raw)
    return made


def changes(old: Any, new: Any, at: str = "") -> dict[str, Any]:
    """{path: new value}, None for what is gone; for lists of things what came (+) and went (-)."""
    found: dict[str, Any] = {}
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            found |= changes(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list):
        for sign, some, others in (("+", new, old), ("-", old, new)):
            moved = [item for item in some if item not in others]
            if moved:
                found[f"{at}{sign}"] = moved
    elif old != new:
        found[at] = new
    return found


DEFAULT = json.loads(GOLDEN.read_text())


def changed(*args: Any, **more: Any) -> dict[str, Any]:
    spec = built(*args, **more)
    del spec["linux"]["seccomp"]
    return changes(DEFAULT, spec)


def test_the_spec_of_a_container_nobody_said_anything_about() -> None:
    spec = built()
    assert spec["linux"].pop("seccomp") == json.loads(encode(default_filter(frozenset(BOUNDING))))
    assert spec == DEFAULT


BOUNDING = DEFAULT["process"]["capabilities"]["bounding"]
CONFIGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "terminal",
        {"Tty": True},
        {"process.terminal": True, "process.env+": ["TERM=xterm"]},
    ),
    (
        "environment",
        {"Env": ["PATH=/opt", "HOME=/h", "TERM", "X="]},
        {
            "process.env-": [
                f"PATH={PATH}",
                "A=b",
                "HOME=/root",
            ]
        }
        | {"process.env+": ["PATH=/opt", "HOME=/h", "X="]},
    ),
    ("domain", {"Domainname": "example.org"}, {"domainname": "example.org"}),
    ("no working folder", {"WorkingDir": ""}, {"process.cwd": "/"}),
]


@pytest.mark.parametrize(("config", "expected"), [case[1:] for case in CONFIGS], ids=[case[0] for case in CONFIGS])
def test_configurations(config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changed(config) == expected


CAP_SETS = [f"process.capabilities.{name}" for name in ("bounding", "effective", "permitted")]
HOSTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "read-only root",
        {"ReadonlyRootfs": True},
        {
            "root.readonly": True,
            "mounts-": DEFAULT["mounts"][-2:],
            "mounts+": [mount | {"options": [*mount["options"], "ro"]} for mount in DEFAULT["mounts"][-2:]],
        },
    ),
    ("one capability more", {"CapAdd": ["SYS_TIME"]}, {f"{name}+": ["CAP_SYS_TIME"] for name in CAP_SETS}),
    ("no capabilities", {"CapDrop": ["ALL"]}, dict.fromkeys(CAP_SETS)),
    ("no new privileges", {"SecurityOpt": ["no-new-privileges"]}, {"process.noNewPrivileges": True}),
    ("nothing masked", {"SecurityOpt": ["systempaths=unconfined"]}, {
        "linux.maskedPaths": None, "linux.readonlyPaths": None,
    }),
    ("own masks", {"MaskedPaths": ["/x"], "ReadonlyPaths": []}, {
        "linux.maskedPaths+": ["/x"], "linux.maskedPaths-": DEFAULT["linux"]["maskedPaths"],
        "linux.readonlyPaths": None,
    }),
    ("limits", {
        "Memory": 64 << 20, "NanoCpus": 500_000_000, "PidsLimit": 7, "CpuShares": 99,
        "CpusetCpus": "0", "BlkioWeight": 300,
    }, {
        "linux.resources.memory.limit": 64 << 20,
        "linux.resources.memory.swap": 128 << 20,
        **{f"linux.resources.cpu.{name}": value
           for name, value in {"shares": 99, "quota": 50_000, "period": 100_000, "cpus": "0"}.items()},
        "linux.resources.pids": {"limit": 7},
        "linux.resources.blockIO": {"weight": 300},
    }),
    ("rlimits", {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 6}, {"Name": "core", "Soft": -1, "Hard": -1}]}, {
        "process.rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6},
            {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
        ],
    }),
    ("sysctls", {"Sysctls": {"net.core.somaxconn": "9"}}, {"linux.sysctl.net.core.somaxconn": "9"}),
    ("oom score", {"OomScoreAdj": 500}, {"process.oomScoreAdj": 500}),
    ("a device", {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "r"}]}, {
        "linux.devices": [
            {"path": "/dev/nil", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0,
             "source": "/dev/null"}
        ],
        "linux.resources.devices+": [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}],
    }),
    ("a device rule", {"DeviceCgroupRules": ["b 8:* rw"]}, {
        "linux.resources.devices+": [{"allow": True, "type": "b", "major": 8, "access": "rw"}],
    }),
    ("shared memory", {"ShmSize": 1 << 20}, {
        "mounts-": [DEFAULT["mounts"][6]],
        "mounts+": [DEFAULT["mounts"][6] | {"options": [*DEFAULT["mounts"][6]["options"][:-1], "size=1048576"]}],
    }),
    ("a tmpfs", {"Tmpfs": {"/run/": "size=1m,exec"}}, {
        "mounts+": [
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs",
             "options": ["noexec", "nosuid", "nodev", "size=1m", "exec"]},
        ],
    }),
    ("annotations", {"Annotations": {"a": "b"}}, {"annotations": {"a": "b"}}),
]  # fmt: skip


@pytest.mark.parametrize(("host", "expected"), [case[1:] for case in HOSTS], ids=[case[0] for case in HOSTS])
def test_host_configurations(host: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changed(host=host) == expected


def test_a_privileged_container() -> None:
    spec = built(host={"Privileged": True})
    assert "seccomp" not in spec["linux"]
    assert "maskedPaths" not in spec["linux"]
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "CAP_SYS_ADMIN" in spec["process"]["capabilities"]["effective"]
    assert all("ro" not in mount["options"] for mount in spec["mounts"] if mount["destination"].startswith("/sys"))


def test_a_user_who_is_not_root_has_only_a_bounding_set() -> None:
    user = ResolvedUser(1000, 1001, (10,), "/home/alice", "alice")
    assert changed(user=user) == {
        "process.user.uid": 1000,
        "process.user.gid": 1001,
        "process.user.additionalGids": [10],
        "process.env-": ["HOME=/root"],
        "process.env+": ["HOME=/home/alice"],
        "process.capabilities.effective": None,
        "process.capabilities.permitted": None,
    }


def test_a_user_namespace() -> None:
    mapping = [{"containerID": 0, "hostID": SHIFT, "size": 65536}]
    point = MountPoint(type="bind", source="/src", destination="/dst")
    assert changed(points=(point,), id_shift=SHIFT, sharing=specs.Sharing(user="")) == {
        "linux.namespaces+": [{"type": "user"}],
        "linux.sysctl.net.ipv4.ping_group_range": "0 65535",
        "linux.uidMappings": mapping,
        "linux.gidMappings": mapping,
        "mounts+": [
            {"destination": "/dst", "type": "bind", "source": "/src", "options": ["rbind", "rprivate", "rw", "ridmap"]}
        ],
    }
    with pytest.raises(InvalidInput, match=r"100000 .*--userns=host"):
        changed(user=ResolvedUser(100_000), id_shift=SHIFT)


def test_shared_namespaces() -> None:
    sharing = specs.Sharing(
        network="/proc/7/ns/net",
        pid="host",
        ipc="/proc/7/ns/ipc",
        uts="host",
        cgroup="host",
        shm_of="/proc/7/ns/mnt",
    )
    assert changed(sharing=sharing) == {
        "hostname": None,
        "linux.sysctl": None,
        "linux.namespaces-": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "cgroup")],
        "linux.namespaces+": [{"type": "network", "path": "/proc/7/ns/net"}, {"type": "ipc", "path": "/proc/7/ns/ipc"}],
        "mounts-": [DEFAULT["mounts"][6]],
        "mounts+": [
            {
                "destination": "/dev/shm",
                "type": "bind",
                "source": "/dev/shm",
                "options": ["rbind", "rprivate", "x-namespace=/proc/7/ns/mnt"],
            }
        ],
    }


def test_an_init_is_an_annotation() -> None:
    assert changed(host={"Init": True}) == {"annotations": {"shipway.init": "true"}}


def test_mounts_stand_in_the_order_of_their_depth_and_the_users_win() -> None:
    points = (
        MountPoint(type="bind", source="/a", destination="/x/y/z", rw=False, options=["bind"], propagation="rslave"),
        MountPoint(type="volume", source="/v", name="v", destination="/x", subpath="in"),
        MountPoint(type="tmpfs", destination="/x/y", options=["size=1"], rw=False),
        MountPoint(type="bind", source="/h", destination="/etc/hosts"),
    )
    spec = built(points=points)
    mine = [mount for mount in spec["mounts"] if mount["destination"].startswith("/x")]
    assert mine == [
        {
            "destination": "/x",
            "type": "bind",
            "source": "/v/in",
            "options": ["rbind", "rprivate", "rw", "x-beneath=/v"],
        },
        {
            "destination": "/x/y",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "noexec", "nodev", "ro", "size=1"],
        },
        {"destination": "/x/y/z", "type": "bind", "source": "/a", "options": ["bind", "rslave", "ro"]},
    ]
    assert [mount["source"] for mount in spec["mounts"] if mount["destination"] == "/etc/hosts"] == ["/h"]


@pytest.mark.parametrize(
    ("name", "sharing"),
    [
        ("kernel.core_pattern", {}),
        ("vm.swappiness", {}),
        ("net.core.somaxconn", {"network": "host"}),
        ("kernel.shmmax", {"ipc": "host"}),
        ("kernel.hostname", {"uts": "host"}),
        ("net..ipv4.ip_forward", {}),
        ("net/../kernel/core_pattern", {}),
        (".net.core.somaxconn", {}),
        ("net.ipv4/../../kernel.core_pattern", {}),
    ],
)
def test_sysctls_of_the_host_are_refused(name: str, sharing: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="sysctl"):
        built(host={"Sysctls": {name: "1"}}, sharing=specs.Sharing(**sharing))


@pytest.mark.parametrize(
    "ulimit", [{"Name": "nofiles", "Soft": 1, "Hard": 1}, {"Name": "nofile", "Soft": 2, "Hard": 1}, {"Name": ""}]
)
def test_limits_that_make_no_sense(ulimit: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="ulimit"):
        built(host={"Ulimits": [ulimit]})
