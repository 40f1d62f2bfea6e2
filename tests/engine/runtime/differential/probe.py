"""Runs inside a container, under either runtime, and prints all that it sees as JSON. Standard library only."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import stat
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_SECTIONS = ("Cap", "NoNewPrivs", "Seccomp", "Umask", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid", "Groups", "NSpid")


def status() -> dict[str, str]:
    found = {}
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.startswith(_SECTIONS):
                found[name] = " ".join(value.split())
    return found


def mounts() -> list[list[str]]:
    """[point, kind, flags, options of the file system] of each, sorted."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields, (kind, _, options) = before.split(), after.split()
            propagation = [tag.split(":")[0] for tag in fields[6:]]
            found.append([fields[4], kind, ",".join([*sorted(fields[5].split(",")), *propagation]), options])
    return sorted(found)


def devices() -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for parent, folders, files in os.walk("/dev"):
        if parent == "/dev/pts":
            continue
        for name in (*folders, *files):
            path = f"{parent}/{name}"
            one = os.lstat(path)
            aim = os.readlink(path) if stat.S_ISLNK(one.st_mode) else ""
            number = [os.major(one.st_rdev), os.minor(one.st_rdev)] if stat.S_ISCHR(one.st_mode) else []
            found[path] = [oct(one.st_mode), one.st_uid, one.st_gid, number, aim]
    return found


def reading(paths: list[str]) -> dict[str, str]:
    """What can be read and listed: masked paths are empty, or refuse."""
    found = {}
    for path in paths:
        try:
            if os.path.isdir(path):
                found[path] = f"folder of {min(len(os.listdir(path)), 1)}"
            else:
                with open(path, "rb") as file:
                    found[path] = f"file of {min(len(file.read(10)), 1)}"
        except OSError as error:
            found[path] = errno.errorcode[error.errno or 0]
    return found


def writing(paths: list[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY))
            found[path] = "writable"
        except OSError as error:
            found[path] = errno.errorcode[error.errno or 0]
    return found


def opening(nodes: list[list[int]]) -> dict[str, str]:
    """Of device nodes made on the spot: can they be made, and opened?"""
    found = {}
    for kind, major, minor in nodes:
        path = f"/tmp/node-{kind}-{major}-{minor}"
        try:
            os.mknod(path, (stat.S_IFCHR if kind else stat.S_IFBLK) | 0o600, os.makedev(major, minor))
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            found[path] = "opened"
        except OSError as error:
            found[path] = errno.errorcode[error.errno or 0]
    return found


def calls(wanted: dict[str, list[int]]) -> dict[str, str]:
    """What becomes of system calls with senseless arguments, each in a child of its own."""
    found = {}
    for name, (number, *arguments) in wanted.items():
        near, far = os.pipe()
        child = os.fork()
        if child == 0:
            result = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
            os.write(far, (errno.errorcode[ctypes.get_errno()] if result < 0 else "done").encode())
            os._exit(0)
        os.close(far)
        said = os.read(near, 100).decode()
        os.close(near)
        _, code = os.waitpid(child, 0)
        found[name] = said or f"killed by {signal.Signals(code & 127).name}"
    return found


def limits() -> dict[str, list[int]]:
    return {
        name: list(resource.getrlimit(getattr(resource, name))) for name in dir(resource) if name.startswith("RLIMIT_")
    }


def namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}


def text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def main() -> None:
    asked = json.loads(sys.argv[1])
    seen = {
        "status": status(),
        "mounts": mounts(),
        "devices": devices() if os.path.isdir("/dev") else {},
        "reading": reading(asked["reading"]),
        "writing": writing(asked["writing"]),
        "opening": opening(asked["opening"]),
        "calls": calls(asked["calls"]),
        "limits": limits(),
        "namespaces": namespaces(),
        "texts": {path: text(path) for path in asked["texts"]},
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "root": sorted(os.listdir("/")),
        "hostname": os.uname().nodename,
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        "session": [os.getpid(), os.getsid(0), os.getpgrp()],
        "terminal": [os.isatty(number) for number in range(3)],
        "arguments": sys.argv[2:],
    }
    print(json.dumps(seen), flush=True)


main()
