from __future__ import annotations

import json
from typing import Any

import pytest

from engine.containers.capabilities import ALL, DEFAULT
from engine.containers.seccomp import default_filter, parse, resolve
from engine.containers.seccomp_default import profile
from engine.errors import InvalidInput
from engine.kernel.seccomp import compile_filter
from engine.kernel.syscalls import NUMBERS
from engine.runtime.spec import encode
from tests.engine.kernel.bpf import ALLOW, EPERM, decide

X86 = NUMBERS["x86_64"]


def compiled(capabilities: list[str] | tuple[str, ...] = DEFAULT) -> bytes:
    return compile_filter(json.loads(encode(resolve(profile(), capabilities, arch="amd64"))), "x86_64")


def names_of(document: dict[str, Any], capabilities: tuple[str, ...] = (), **machine: Any) -> list[str]:
    document = {"defaultAction": "SCMP_ACT_ERRNO", **document}
    machine = {"arch": "amd64", "kernel": (6, 1)} | machine
    return [name for rule in resolve(document, capabilities, **machine).syscalls for name in rule.names]


@pytest.mark.parametrize(
    ("rule", "there"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_CHOWN"]}}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"includes": {}, "excludes": None}, True),
    ],
)
def test_conditions(rule: dict[str, Any], there: bool) -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", **rule}
    assert names_of({"syscalls": [rule]}, ("CAP_CHOWN",)) == (["read"] if there else [])


def test_the_older_single_name_and_all_details_of_a_rule() -> None:
    argument = {"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}
    rule = {"name": "read", "names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [argument]}
    document = {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 7, "syscalls": [rule]}
    made = json.loads(encode(resolve(document, (), arch="amd64")))
    assert made == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": 7,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["write", "read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [argument]}],
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "[" * 100_000,
        "{}",
        '{"defaultAction": 7}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["read"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": 1, "action": "SCMP_ACT_ALLOW"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "A", "includes": {"minKernel": "x"}}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}',
        " " * (5 << 20),
    ],
    ids=str,
)
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(InvalidInput, match="seccomp profile"):
        resolve(parse(text), ())


def test_the_default_profile_lets_ordinary_programs_work() -> None:
    program = compiled()
    ordinary = "read write openat mmap execve clone fork futex epoll_wait socket connect statx io_setup ptrace"
    for name in ordinary.split():
        assert decide(program, X86[name]) == ALLOW, name


DENIED = """
add_key request_key keyctl bpf perf_event_open userfaultfd kexec_load kexec_file_load init_module finit_module
delete_module mount umount2 move_mount open_tree fsopen setns unshare pivot_root reboot swapon swapoff settimeofday
clock_settime iopl ioperm acct quotactl open_by_handle_at lookup_dcookie syslog vhangup io_uring_setup io_uring_enter
io_uring_register pidfd_getfd sethostname setdomainname move_pages migrate_pages fanotify_init nfsservctl uselib ustat
sysfs _sysctl
"""


def test_the_default_profile_denies_what_reaches_beyond_a_container() -> None:
    program = compiled()
    assert [name for name in DENIED.split() if decide(program, X86[name]) != EPERM] == []


def test_sockets_that_no_network_namespace_holds() -> None:
    program = compiled()
    for family in (1, 2, 10, 16, 17, 39, 41):
        assert decide(program, X86["socket"], (family,)) == ALLOW
    for family in (38, 40):
        assert decide(program, X86["socket"], (family,)) == EPERM


def test_new_namespaces_only_for_who_may_administer() -> None:
    new_user, thread = 0x10000000, 0x3D0F00
    plain, admin = compiled(), compiled((*DEFAULT, "CAP_SYS_ADMIN"))
    assert decide(plain, X86["clone"], (thread,)) == ALLOW
    assert decide(plain, X86["clone"], (new_user | 17,)) == EPERM
    assert decide(plain, X86["clone3"]) == 0x00050000 | 38
    assert decide(admin, X86["clone"], (new_user | 17,)) == ALLOW
    for name in ("clone3", "unshare", "mount", "setns"):
        assert decide(admin, X86[name]) == ALLOW


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_BPF", "bpf"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_TIME", "settimeofday"),
        ("CAP_PERFMON", "perf_event_open"),
    ],
)
def test_a_capability_opens_its_calls(capability: str, name: str) -> None:
    assert decide(compiled((capability,)), X86[name]) == ALLOW


def test_even_all_capabilities_open_not_everything() -> None:
    program = compiled(ALL)
    for name in ("keyctl", "userfaultfd", "kexec_load", "io_uring_setup"):
        assert decide(program, X86[name]) == EPERM


def test_filters_are_made_once() -> None:
    assert default_filter(frozenset(DEFAULT)) is default_filter(frozenset(DEFAULT))
