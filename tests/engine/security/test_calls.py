"""System calls that reach beyond a container, made from inside; each must be refused."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from engine.kernel.syscalls import NUMBERS
from tests.engine.security.conftest import Attacker
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

# name → arguments; a string is passed as a pointer to it. Each would be a success, or fail for another reason than
# rights, were it let through.
CALLS: dict[str, list[Any]] = {
    "keyctl": [0, -3, 1],
    "add_key": ["user", "shipway", "x", 1, -3],
    "request_key": ["user", "shipway", 0, -3],
    "bpf": [0, 0, 0],
    "perf_event_open": [0, 0, -1, -1, 0],
    "userfaultfd": [0],
    "io_uring_setup": [1, 0],
    "kexec_load": [0, 0, 0, 0],
    "kexec_file_load": [-1, -1, 0, 0, 0],
    "init_module": [0, 0, ""],
    "finit_module": [-1, "", 0],
    "delete_module": ["shipway", 0],
    "mount": ["none", "/tmp", "tmpfs", 0, 0],
    "umount2": ["/proc", 2],
    "move_mount": [-1, "", -100, "/tmp", 4],
    "open_tree": [-100, "/", 1],
    "fsopen": ["tmpfs", 0],
    "mount_setattr": [-100, "/proc", 0, 0, 0],
    "pivot_root": ["/", "/tmp"],
    "unshare": [0x20000],
    "setns": [-1, 0],
    "open_by_handle_at": [-100, "", 0],
    "swapon": ["/tmp/x", 0],
    "reboot": [0xFEE1DEAD, 672274793, 0, 0],
    "settimeofday": [0, 0],
    "clock_settime": [0, 0],
    "acct": [0],
    "quotactl": [0, "", 0, 0],
    "iopl": [3],
    "ioperm": [0x80, 1, 1],
    "syslog": [3, 0, 0],
    "sethostname": ["evil", 4],
    "setdomainname": ["evil", 4],
    "lookup_dcookie": [0, 0, 0],
    "fanotify_init": [0, 0],
    "vhangup": [],
    "pidfd_getfd": [-1, 0, 0],
    "kcmp": [1, 1, 0, 0, 0],
}

ALL_AT_ONCE = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
numbers, calls = json.loads(os.environ["NUMBERS"]), json.loads(os.environ["CALLS"])
found = {}
for name, arguments in calls.items():
    converted = [a.encode() if isinstance(a, str) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(numbers[name]), *converted)
    found[name] = "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
CLONE_NEWUSER = 0x10000000
pid = libc.syscall(ctypes.c_long(numbers["clone"]), ctypes.c_long(CLONE_NEWUSER | 17), 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
found["clone"] = "done" if pid > 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps(found))
"""


async def test_calls_that_reach_beyond_a_container(attacker: Attacker, ids: dict[str, str]) -> None:
    numbers = {name: NUMBERS[os.uname().machine][name] for name in (*CALLS, "clone")}
    env = [f"NUMBERS={json.dumps(numbers)}", f"CALLS={json.dumps(CALLS)}"]
    found = json.loads(await attacker.run(ALL_AT_ONCE, env=env, **ids))
    assert found == dict.fromkeys((*CALLS, "clone"), "EPERM")


UNFILTERED = [
    "mount",
    "umount2",
    "unshare",
    "sethostname",
    "setdomainname",
    "acct",
    "swapon",
    "vhangup",
    "syslog",
]


async def test_without_a_filter_capabilities_still_refuse(attacker: Attacker, ids: dict[str, str]) -> None:
    """What is left when somebody turns seccomp off."""
    numbers = {name: NUMBERS[os.uname().machine][name] for name in (*UNFILTERED, "clone")}
    calls = {name: CALLS[name] for name in UNFILTERED} | {"syslog": [2, "buffer", 6]}
    env = [f"NUMBERS={json.dumps(numbers)}", f"CALLS={json.dumps(calls)}"]
    found = json.loads(await attacker.run(ALL_AT_ONCE, env=env, SecurityOpt=["seccomp=unconfined"], **ids))
    found.pop("clone")
    assert found == dict.fromkeys(UNFILTERED, "EPERM")


async def test_root_of_a_namespace_within_a_container_is_nobody_either(attacker: Attacker) -> None:
    """A user namespace of its own, where seccomp is off: no mount of the host's, no release_agent (CVE-2022-0492)."""
    code = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
uid = os.getuid()
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWCGROUP = 0x10000000, 0x20000, 0x2000000
if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP):
    print("unshare", errno.errorcode[ctypes.get_errno()])
else:
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
    os.makedirs("/tmp/c", exist_ok=True)
    for kind in ("memory", "rdma", "cpu", "pids"):
        if libc.mount(b"c", b"/tmp/c", b"cgroup", 0, kind.encode()) == 0:
            try:
                open("/tmp/c/release_agent", "w").write("/tmp/evil")
                print("release_agent written through", kind)
            except OSError as error:
                print(kind, errno.errorcode[error.errno])
            libc.umount2(b"/tmp/c", 2)
for parent, folders, files in os.walk("/sys/fs/cgroup"):
    for name in ("release_agent", "notify_on_release", "devices.allow", "cgroup.procs"):
        if name in files:
            try:
                open(f"{parent}/{name}", "w").write("1")
                print("written:", parent, name)
            except OSError:
                pass
"""
    for opened in ({}, {"SecurityOpt": ["seccomp=unconfined"]}):
        assert "written" not in await attacker.run(code, **opened)


FILES = """
import errno, os
targets = {
    "/proc/sys/kernel/core_pattern": "|/tmp/evil",
    "/proc/sys/kernel/modprobe": "/tmp/evil",
    "/proc/sys/vm/drop_caches": "1",
    "/proc/sys/kernel/randomize_va_space": "0",
    "/proc/sysrq-trigger": "h",
    "/proc/irq/default_smp_affinity": "1",
    "/sys/kernel/uevent_helper": "/tmp/evil",
    "/sys/power/state": "mem",
    "/sys/class/net/lo/mtu": "1000",
    "/proc/self/attr/exec": "x",
}
for path, value in targets.items():
    try:
        with open(path, "w") as file:
            file.write(value)
        print("written:", path)
    except OSError:
        pass
for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/proc/scsi"):
    try:
        if os.path.isdir(path):
            found = os.listdir(path)
        else:
            with open(path, "rb") as file:
                found = file.read(64)
        if found:
            print("read:", path)
    except OSError:
        pass
if os.path.isdir("/sys/firmware") and os.listdir("/sys/firmware"):
    print("read: /sys/firmware")
try:
    with open("/dev/mem", "rb") as file:
        print("read: /dev/mem")
except OSError:
    pass
print("end")
"""


async def test_files_of_the_kernel(attacker: Attacker, ids: dict[str, str]) -> None:
    assert await attacker.run(FILES, **ids) == "end\n"


async def test_device_nodes(attacker: Attacker, ids: dict[str, str]) -> None:
    """Made or found, a node of the host's disks, memory or consoles can't be used."""
    code = """
import os, stat
for path in ("/tmp", "/dev", "/dev/shm", "/home"):
    for letter, major, minor in (("b", 254, 0), ("b", 8, 0), ("c", 1, 1), ("c", 1, 11), ("c", 10, 200), ("c", 4, 1)):
        kind = stat.S_IFBLK if letter == "b" else stat.S_IFCHR
        name = f"{path}/node-{major}-{minor}"
        try:
            os.mknod(name, kind | 0o666, os.makedev(major, minor))
        except OSError:
            continue
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                os.open(name, flags)
                print("opened", name)
            except OSError:
                pass
allowed = "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero core".split()
print("end", sorted(name for name in os.listdir("/dev") if name not in allowed and not name.startswith("node-")))
"""
    assert await attacker.run(code, **ids) == "end []\n"


async def test_processes_outside(attacker: Attacker, ids: dict[str, str]) -> None:
    """No process of the host is there to be seen, signalled, traced or read, not even by its number."""
    pid = os.getpid()
    code = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
for number in ({pid}, os.getppid() or {pid}):
    try:
        os.kill(number, 0)
        print("signalled", number)
    except OSError:
        pass
    if libc.ptrace(16, number, 0, 0) == 0:
        print("traced", number)
    for path in (f"/proc/{{number}}/root", f"/proc/{{number}}/environ", f"/proc/{{number}}/mem"):
        try:
            os.open(path, os.O_RDONLY)
            print("opened", path)
        except OSError:
            pass
"""
    assert await attacker.run(code, **ids) == "[1]\n"


async def test_abstract_sockets_stay_outside(attacker: Attacker, ids: dict[str, str]) -> None:
    """CVE-2020-15257: they belong to a network namespace; and the engine has none, for whoever shares the host's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0shipway-outside")
        listener.listen()
        code = """
import socket
try:
    socket.socket(socket.AF_UNIX).connect("\\0shipway-outside")
    print("connected")
except OSError as error:
    print(type(error).__name__)
print([line for line in open("/proc/net/unix") if "@" in line])
"""
        assert await attacker.run(code, **ids) == "ConnectionRefusedError\n[]\n"
    table = Path("/proc/net/unix").read_text(encoding="ascii", errors="replace").splitlines()
    assert not [line for line in table if "@" in line and "shipway" in line]


async def test_no_descriptor_is_handed_on(attacker: Attacker, ids: dict[str, str]) -> None:
    code = """
import os
print(sorted(os.listdir("/proc/self/fd")), os.readlink("/proc/self/cwd"), os.readlink("/proc/self/root"))
for name in ("0", "1", "2"):
    aim = os.readlink(f"/proc/1/fd/{name}")
    if not aim.startswith(("pipe:", "/dev/null", "/proc")):
        print(name, aim)
"""
    # 3 is the folder that is being listed.
    assert await attacker.run(code, **ids) == "['0', '1', '2', '3'] / /\n"


async def test_nothing_can_be_gained_any_more(attacker: Attacker) -> None:
    """no_new_privs: a set-uid program gives nothing."""
    code = """
import os, shutil, subprocess
shutil.copy("/usr/bin/env", "/tmp/env")
os.chmod("/tmp/env", 0o4755)
os.setgroups([]); os.setgid(1001); os.setuid(1000)
print(subprocess.run(["/tmp/env", "-i", "/usr/bin/id", "-u"], capture_output=True, text=True).stdout.strip())
print(open("/proc/self/status").read().split("NoNewPrivs:\\t")[1][0])
"""
    assert (await attacker.run(code)).split() == ["0", "0"]
    assert (await attacker.run(code, SecurityOpt=["no-new-privileges"])).split() == ["1000", "1"]


async def test_execs_can_not_be_looked_into_before_they_are_programs(attacker: Attacker, ids: dict[str, str]) -> None:
    """A process of ours in the container's pid namespace: its descriptors, memory and program are the engine's."""
    code = """
import os, time
print("ready", flush=True)
found, until = set(), time.monotonic() + 60
while time.monotonic() < until and not os.path.exists("/tmp/stop"):
    for name in os.listdir("/proc"):
        if name.isdigit() and name not in ("1", str(os.getpid())):
            for what in ("exe", "cwd", "root", "fd", "environ", "mem", "maps"):
                try:
                    if what in ("exe", "cwd", "root"):
                        seen = os.readlink(f"/proc/{name}/{what}")
                    elif what == "fd":
                        seen = str([os.readlink(f"/proc/{name}/fd/{one}") for one in os.listdir(f"/proc/{name}/fd")])
                    else:
                        seen = open(f"/proc/{name}/{what}", "rb").read(4000).decode(errors="replace")
                except OSError:
                    continue
                if "python" in seen or "shipway" in seen or "socket:" in seen:
                    found.add((what, seen[:200]))
print(sorted(found))
"""
    made = await attacker.start(code, **ids)
    await eventually(lambda: b"ready" in Path(attacker.rooms.get(made).log_path).read_bytes(), "the watch")
    for _ in range(30):
        assert (await attacker.rooms.exec(made, "/bin/true"))[0] == 0
    await attacker.rooms.exec(made, "/bin/touch", "/tmp/stop")
    await attacker.rooms.containers.wait(made)
    assert (await attacker.rooms.said(made))[0] == b"ready\n[]\n"
