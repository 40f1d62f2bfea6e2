"""The system calls that Python's `os` does not have, through ctypes. Standard library only, for the zygote loads it.

`PyDLL` keeps the GIL: these calls are short, and a forked child must not find it taken.
"""

from __future__ import annotations

import ctypes
import os
import sys

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_NUMBERS = {
    "x86_64": {"pivot_root": 155, "capset": 126, "seccomp": 317, "setns": 308, "unshare": 272, "bpf": 321},
    "aarch64": {"pivot_root": 41, "capset": 91, "seccomp": 277, "setns": 268, "unshare": 97, "bpf": 280},
}[os.uname().machine]
# From here on every architecture has the same numbers.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_CLONE3, _CLOSE_RANGE, _MOUNT_SETATTR, _QUOTACTL_FD = 435, 436, 442, 443

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
CLONE_PARENT, CLONE_INTO_CGROUP = 0x8000, 0x200000000
SIGCHLD = 17

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT = 1, 2, 4, 8, 16, 32
MS_DIRSYNC, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC = 128, 1024, 2048, 4096, 8192, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME = 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP = 0x80, 0x100000

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NAME, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 8, 15, 23, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE, PR_CAP_AMBIENT = 36, 38, 4, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4


def trim_heap() -> None:
    """Gives free memory back to the kernel, where the C library can."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))


def _text(value: str | bytes | None) -> bytes | None:
    return os.fsencode(value) if value is not None else None


def _check(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what)
    return result


def _call(number: int, what: str, *arguments: object) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_syscall(ctypes.c_long(number), *converted), what)


class _CloneArguments(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


def clone(flags: int, cgroup: int | None = None) -> int:
    """fork(2) into new namespaces: 0 in the child, its pid in the parent.

    `cgroup` is a descriptor of a v2 group's folder, in which the child is born.
    """
    wanted = _CloneArguments(flags=flags, exit_signal=0 if flags & CLONE_PARENT else SIGCHLD)
    if cgroup is not None:
        wanted.flags |= CLONE_INTO_CGROUP
        wanted.cgroup = cgroup
    pid = _call(_CLONE3, "clone3", ctypes.byref(wanted), ctypes.sizeof(wanted))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    return pid


def unshare(flags: int) -> None:
    _call(_NUMBERS["unshare"], "unshare", flags)


def setns(fd: int, flags: int) -> None:
    """Joins the namespace behind `fd`; with a pidfd, all of that process's namespaces that `flags` name."""
    _call(_NUMBERS["setns"], "setns", fd, flags)


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    _check(
        _libc.mount(_text(source), _text(target), _text(fstype), ctypes.c_ulong(flags), _text(data)),
        f"mount {fstype or source} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(_text(target), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    _call(_NUMBERS["pivot_root"], "pivot_root", _text(new_root), _text(put_old))


def filesystem(fd: int) -> int:
    """The magic number of the file system that `fd` is on (linux/magic.h)."""
    buffer = ctypes.create_string_buffer(512)
    _check(_libc.fstatfs(fd, buffer), "fstatfs")
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)


def sethostname(name: str) -> None:
    raw = os.fsencode(name)
    _check(_libc.sethostname(raw, len(raw)), "sethostname")


def setdomainname(name: str) -> None:
    raw = os.fsencode(name)
    _check(_libc.setdomainname(raw, len(raw)), "setdomainname")


def prctl(option: int, second: int | bytes = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    value = second if isinstance(second, bytes) else ctypes.c_ulong(second)
    return _check(
        _libc.prctl(option, value, ctypes.c_ulong(third), ctypes.c_ulong(fourth), ctypes.c_ulong(fifth)),
        f"prctl {option}",
    )


def close_range(first: int, last: int) -> None:
    """Closes every descriptor from `first` to `last`."""
    if first <= last:
        _call(_CLOSE_RANGE, "close_range", first, last, 0)


def open_tree(directory: int, path: str, flags: int) -> int:
    return _call(_OPEN_TREE, f"open_tree {path}", directory, _text(path), flags)


def move_mount(source: int, target: str) -> None:
    """Puts the detached mount behind `source` on `target`."""
    _call(_MOVE_MOUNT, f"move_mount {target}", source, b"", AT_FDCWD, _text(target), MOVE_MOUNT_F_EMPTY_PATH)


def move_mount_to(source: int, target: int) -> None:
    """Puts the detached mount behind `source` on what the descriptor `target` is open on."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _call(_MOVE_MOUNT, "move_mount", source, b"", target, b"", flags)


def fsopen(fstype: str) -> int:
    return _call(_FSOPEN, f"fsopen {fstype}", _text(fstype), 1)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    _call(_FSCONFIG, f"fsconfig {key}={value or aux}", fd, command, _text(key), _text(value), aux)


def fsmount(fd: int, attributes: int = 0) -> int:
    return _call(_FSMOUNT, "fsmount", fd, 1, attributes)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    fd: int,
    path: str = "",
    *,
    attributes: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2): changes a mount's flags, propagation or id mapping; of the whole tree if `recursive`."""
    wanted = _MountAttributes(attributes, clear, propagation, userns)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    _call(
        _MOUNT_SETATTR,
        f"mount_setattr {path}",
        fd,
        _text(path),
        flags,
        ctypes.byref(wanted),
        ctypes.sizeof(wanted),
    )


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Sets this thread's capability sets, each a bit mask."""
    header = _CapabilityHeader(0x20080522, 0)
    data = (_CapabilityData * 2)(
        *(
            _CapabilityData(
                effective >> shift & 0xFFFFFFFF,
                permitted >> shift & 0xFFFFFFFF,
                inheritable >> shift & 0xFFFFFFFF,
            )
            for shift in (0, 32)
        )
    )
    _call(_NUMBERS["capset"], "capset", ctypes.byref(header), ctypes.byref(data))


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def seccomp_load(program: bytes, flags: int = 0) -> None:
    """Loads a BPF program (8 bytes an instruction) as this thread's filter."""
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    _call(_NUMBERS["seccomp"], "seccomp", 1, flags, ctypes.byref(prog))


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); descriptors that it makes are closed on exec."""
    buffer = ctypes.create_string_buffer(attributes, 128)
    return _call(_NUMBERS["bpf"], "bpf", command, ctypes.byref(buffer), len(buffer))


def quotactl_fd(fd: int, command: int, number: int, answer: ctypes.Array[ctypes.c_char]) -> None:
    """quotactl_fd(2) on the file system that `fd` is on; `number` is of the user, group or project."""
    _call(_QUOTACTL_FD, "quotactl", fd, command, number, ctypes.byref(answer))
