"""A container's file system: its root, its mounts, its /dev, and what of it is hidden. Runs in its init.

Every destination is resolved below the new root by the kernel itself (openat2 with RESOLVE_IN_ROOT): an image's
links lead nowhere else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from engine.kernel import libc
from engine.kernel.cgroup.host import hierarchies
from engine.kernel.paths import openat2
from engine.runtime.zygote.detached import is_bind

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

_FLAGS = {
    "ro": libc.MS_RDONLY,
    "nosuid": libc.MS_NOSUID,
    "nodev": libc.MS_NODEV,
    "noexec": libc.MS_NOEXEC,
    "sync": libc.MS_SYNCHRONOUS,
    "dirsync": libc.MS_DIRSYNC,
    "noatime": libc.MS_NOATIME,
    "nodiratime": libc.MS_NODIRATIME,
    "relatime": libc.MS_RELATIME,
    "strictatime": libc.MS_STRICTATIME,
}
_CLEARED = {
    "rw": libc.MS_RDONLY,
    "suid": libc.MS_NOSUID,
    "dev": libc.MS_NODEV,
    "exec": libc.MS_NOEXEC,
    "async": libc.MS_SYNCHRONOUS,
    "atime": libc.MS_NOATIME,
    "norelatime": libc.MS_RELATIME,
    "defaults": 0,
}
_PROPAGATION = {
    "private": libc.MS_PRIVATE,
    "rprivate": libc.MS_PRIVATE | libc.MS_REC,
    "slave": libc.MS_SLAVE,
    "rslave": libc.MS_SLAVE | libc.MS_REC,
    "shared": libc.MS_SHARED,
    "rshared": libc.MS_SHARED | libc.MS_REC,
    "unbindable": libc.MS_UNBINDABLE,
    "runbindable": libc.MS_UNBINDABLE | libc.MS_REC,
}
_DEVICES = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
}
_LINKS = {
    "/dev/core": "/proc/kcore",
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
}
_MAX_LINKS = 40
PROC = 0x9FA0
_OVER_PROC = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def enter(spec: dict[str, Any], trees: list[int], become_root: Callable[[], None]) -> int:
    """Makes the spec's root the root of this process, with the spec's mounts and devices in it; returns what `protect`
    needs.

    `trees`: the mounts that were made outside, the root's overlay first where it has one. `become_root` is called once
    nothing of the host has to be looked up any more.
    """
    linux = spec.get("linux", {})
    libc.mount(None, "/", None, _PROPAGATION.get(linux.get("rootfsPropagation") or "rslave", 0) | libc.MS_REC)
    root = spec["root"]["path"]
    binds = [mount for mount in spec.get("mounts", ()) if is_bind(mount)]
    if len(trees) > len(binds):
        overlay = trees.pop(0)
        libc.move_mount(overlay, root)
        os.close(overlay)
    else:
        libc.mount(root, root, None, libc.MS_BIND | libc.MS_REC)
    libc.mount(None, root, None, libc.MS_PRIVATE)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    own = "" if any(each["type"] == "cgroup" for each in linux.get("namespaces", ())) else linux["cgroupsPath"]
    null = _null_device() if linux.get("maskedPaths") else -1
    become_root()
    for mount in spec.get("mounts", ()):
        if is_bind(mount):
            _attach(root_fd, mount["destination"], trees.pop(0))
        else:
            _mount(root_fd, mount, own)
    _check_proc(root_fd, spec)
    if not any(os.path.normpath(mount["destination"]) == "/dev" for mount in binds):
        # A folder of the host's stays as it is.
        _devices(root_fd, spec)
    before = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root_fd)
    os.close(root_fd)
    libc.pivot_root(".", ".")
    # Not by the name ".", which is the new root until then: binds that are shared with the host stay so.
    os.fchdir(before)
    os.close(before)
    libc.mount(None, ".", None, libc.MS_SLAVE | libc.MS_REC)
    libc.umount(".", libc.MNT_DETACH)
    os.chdir("/")
    return null


def _null_device() -> int:
    """The host's, as a mount to be put somewhere: what a container has in the place of its own does not matter then
    (CVE-2025-31133)."""
    tree = libc.open_tree(libc.AT_FDCWD, "/dev/null", libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC)
    strict = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NOEXEC
    libc.mount_setattr(tree, attributes=strict)
    return tree


def protect(spec: dict[str, Any], null: int) -> None:
    """Hides the masked paths, makes the read-only ones so, and last the root itself."""
    linux = spec.get("linux", {})
    for path in linux.get("readonlyPaths", ()):
        try:
            libc.mount(path, path, None, libc.MS_BIND | libc.MS_REC)
        except FileNotFoundError:
            continue
        _remount(path, _inherited(path) | libc.MS_RDONLY)
    if null >= 0:
        _mask(linux["maskedPaths"], null)
        os.close(null)
    if spec["root"].get("readonly"):
        _remount("/", _inherited("/") | libc.MS_RDONLY)


def _mask(paths: list[str], null: int) -> None:
    placed = False
    for path in paths:
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                libc.mount("tmpfs", path, "tmpfs", libc.MS_RDONLY, "size=0")
            elif placed:
                libc.mount(f"/proc/self/fd/{null}", path, None, libc.MS_BIND)
            else:
                libc.move_mount(null, path)
                placed = True
        except (FileNotFoundError, NotADirectoryError):
            continue


def split_options(options: list[str]) -> tuple[int, int, str]:
    """Mount options → flags, propagation, and the rest as the file system's own data."""
    flags = propagation = 0
    data = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in _CLEARED:
            flags &= ~_CLEARED[option]
        elif option in _PROPAGATION:
            propagation |= _PROPAGATION[option]
        else:
            data.append(option)
    return flags, propagation, ",".join(data)


def _check_proc(root: int, spec: dict[str, Any]) -> None:
    """What hides and sets things below /proc must not be shown another folder in its place (CVE-2025-52881)."""
    if any(os.path.normpath(mount["destination"]) == "/proc" for mount in spec.get("mounts", ())):
        fd = openat2(root, "/proc", os.O_PATH)
        try:
            if libc.filesystem(fd) != PROC:
                raise OSError(errno.EINVAL, "what is mounted there is not the proc file system", "/proc")
        finally:
            os.close(fd)


def _not_in_proc(fd: int, destination: str) -> None:
    """Nothing but what lxcfs shows may lie on /proc, as in runc: the rest is ours to hide and to set."""
    if libc.filesystem(fd) == PROC and destination not in _OVER_PROC:
        raise OSError(errno.EPERM, "it is inside /proc, where nothing can be mounted", destination)


def _attach(root: int, destination: str, tree: int) -> None:
    fd = _mount_point(root, destination, stat.S_ISDIR(os.fstat(tree).st_mode))
    try:
        _not_in_proc(fd, destination)
        libc.move_mount_to(tree, fd)
    finally:
        os.close(fd)
        os.close(tree)


def _mount(root: int, mount: dict[str, Any], own: str) -> None:
    """`own`: the path of its control group where it sees the host's as they are, else ""."""
    kind, source = mount["type"], mount.get("source") or ""
    flags, propagation, data = split_options(mount.get("options", []))
    if kind == "cgroup":
        _mount_cgroup(root, mount["destination"], flags, own)
        return
    fd = _mount_point(root, mount["destination"], True)
    _not_in_proc(fd, mount["destination"])
    try:
        libc.mount(source or kind, f"/proc/self/fd/{fd}", kind, flags, data or None)
    except PermissionError:
        if kind != "sysfs":
            raise
        # Only the owner of a network namespace may see its /sys; whoever shares the host's is shown the host's.
        libc.mount("/sys", f"/proc/self/fd/{fd}", None, libc.MS_BIND | libc.MS_REC)
    finally:
        os.close(fd)
    if propagation:
        fd = _mount_point(root, mount["destination"], True)
        libc.mount(None, f"/proc/self/fd/{fd}", None, propagation)
        os.close(fd)


def _mount_cgroup(root: int, destination: str, flags: int, own: str) -> None:
    here = hierarchies()
    fd = _mount_point(root, destination, True)
    flags |= libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    try:
        if here.mode == "v2":
            if own:
                fd = _show_group(root, fd, destination, f"{here.v2}{own}", flags)
            else:
                libc.mount("cgroup", f"/proc/self/fd/{fd}", "cgroup2", flags)
            return
        libc.mount("tmpfs", f"/proc/self/fd/{fd}", "tmpfs", flags & ~libc.MS_RDONLY, "mode=755,size=64k")
    finally:
        os.close(fd)
    for controllers in dict.fromkeys(here.v1.values()):
        names = [name for name, target in here.v1.items() if target == controllers]
        target = f"{destination}/{os.path.basename(controllers)}"
        fd = _mount_point(root, target, True)
        try:
            if own:
                fd = _show_group(root, fd, target, f"{controllers}{own}", flags)
            else:
                libc.mount("cgroup", f"/proc/self/fd/{fd}", "cgroup", flags, ",".join(names))
        finally:
            os.close(fd)
    fd = _mount_point(root, destination, True)
    try:
        if flags & libc.MS_RDONLY:
            _remount(f"/proc/self/fd/{fd}", flags)
    finally:
        os.close(fd)


def _show_group(root: int, fd: int, destination: str, group: str, flags: int) -> int:
    """Without a namespace the mount would begin at the hierarchy's root: only its own part of it is shown."""
    libc.mount(group, f"/proc/self/fd/{fd}", None, libc.MS_BIND)
    os.close(fd)
    fd = _mount_point(root, destination, True)
    _remount(f"/proc/self/fd/{fd}", flags)
    return fd


def _mount_point(root: int, destination: str, is_folder: bool, links: int = 0) -> int:
    """The folder or file at `destination`, made if it is not there; links are resolved inside the root."""
    try:
        return openat2(root, destination, os.O_PATH)
    except FileNotFoundError:
        pass
    parent, _, name = destination.rstrip("/").rpartition("/")
    fd = _mount_point(root, parent or "/", True, links)
    try:
        if is_folder:
            os.mkdir(name, 0o755, dir_fd=fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=fd))
    except FileExistsError:
        # A link to what is not there: the image means its target, which is made inside the root too.
        if links >= _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), destination) from None
        target = os.path.join(parent or "/", os.readlink(name, dir_fd=fd))
        return _mount_point(root, target, is_folder, links + 1)
    finally:
        os.close(fd)
    return openat2(root, destination, os.O_PATH)


def _devices(root: int, spec: dict[str, Any]) -> None:
    wanted = [
        {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        for path, (major, minor) in _DEVICES.items()
    ]
    masked = os.umask(0)
    try:
        for device in [*wanted, *spec.get("linux", {}).get("devices", ())]:
            _device(root, device)
        for path, target in _LINKS.items():
            parent, name = os.path.split(path)
            fd = _mount_point(root, parent, True)
            try:
                os.symlink(target, name, dir_fd=fd)
            except FileExistsError:
                pass
            finally:
                os.close(fd)
        if spec["process"].get("terminal"):
            fd = _mount_point(root, "/dev/console", False)
            os.close(fd)
    finally:
        os.umask(masked)


def _device(root: int, device: dict[str, Any]) -> None:
    parent, name = os.path.split(device["path"])
    fd = _mount_point(root, parent, True)
    mode = device.get("fileMode")
    mode = 0o666 if mode is None else mode & 0o7777
    try:
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        os.mknod(name, _KINDS[device["type"]] | mode, number, dir_fd=fd)
        os.chown(name, device.get("uid") or 0, device.get("gid") or 0, dir_fd=fd, follow_symlinks=False)
    except FileExistsError:
        pass
    except PermissionError:
        # In a user namespace nobody makes device nodes: show the host's own.
        os.close(fd)
        fd = _mount_point(root, device["path"], False)
        at = f"/proc/self/fd/{fd}"
        libc.mount(device.get("source") or device["path"], at, None, libc.MS_BIND)
        os.close(fd)
        fd = _mount_point(root, device["path"], False)
        _remount(f"/proc/self/fd/{fd}", libc.MS_NOSUID | libc.MS_NOEXEC)
    finally:
        os.close(fd)


def _inherited(path: str) -> int:
    """The flags that a mount has already: a remount must name them again or it would clear them."""
    has = os.statvfs(path).f_flag
    pairs = (
        (os.ST_RDONLY, libc.MS_RDONLY),
        (os.ST_NOSUID, libc.MS_NOSUID),
        (os.ST_NODEV, libc.MS_NODEV),
        (os.ST_NOEXEC, libc.MS_NOEXEC),
        (os.ST_NOATIME, libc.MS_NOATIME),
        (os.ST_NODIRATIME, libc.MS_NODIRATIME),
        (os.ST_RELATIME, libc.MS_RELATIME),
    )
    return sum(flag for bit, flag in pairs if has & bit)


def _remount(path: str, flags: int) -> None:
    libc.mount(None, path, None, libc.MS_BIND | libc.MS_REMOUNT | flags)
