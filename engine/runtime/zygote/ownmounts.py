"""A mount namespace of the zygote's own: its root is the zygote's, its mounts are the few that the zygote needs.

Each container begins with a copy of them, so each mount more makes each start slower. Whatever else containers are
given is looked up among the host's mounts, to which there is a way back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from engine.kernel import libc
from engine.kernel.paths import unescaped

_KERNELS = ("/proc", "/sys", "/dev")


class HostMounts:
    """The mounts among which the engine was started, as they are now."""

    def __init__(self, namespace: int, root: int) -> None:
        """Descriptors: of the mount namespace, and of the folder that is the engine's root in it."""
        self.namespace, self.root = namespace, root
        self._own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """In there paths lead where they lead on the host. Only for a process with one thread."""
        libc.setns(self.namespace, libc.CLONE_NEWNS)
        try:
            os.fchdir(self.root)
            os.chroot(".")
            yield
        finally:
            libc.setns(self._own, libc.CLONE_NEWNS)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Whoever goes to another mount namespace in there is back afterwards, with the root it had. Only for a process
    with one thread."""
    here = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            libc.setns(here, libc.CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")
        finally:
            os.close(here)
            os.close(root)


def enter(needed: list[str]) -> tuple[int, int]:
    """Leaves the host's mount namespace for a copy of what `needed`, some paths, is on, and of the kernel's own file
    systems. Returns what `HostMounts` needs, for a program that is executed.

    In a chroot the namespace's root is another one than ours, and setns(2) goes to the namespace's: whoever was
    executed in a container would stand in the host's root. So ours is made the namespace's, and what is around
    it is let go.
    """
    hosts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    hosts_root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    libc.unshare(libc.CLONE_NEWNS)
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    libc.setns(namespace, libc.CLONE_NEWNS)
    os.close(namespace)
    libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
    if not os.path.samestat(os.fstat(here), os.stat("/")):
        # pivot_root takes mount points only, and a chroot need not be one.
        whole = libc.AT_RECURSIVE | libc.AT_EMPTY_PATH
        tree = libc.open_tree(here, "", libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC | whole)
        libc.move_mount_to(tree, here)
        os.fchdir(tree)
        os.close(tree)
        libc.pivot_root(".", ".")
        libc.umount(".", libc.MNT_DETACH)
        os.chdir("/")
    os.close(here)
    _prune(needed)
    for fd in (hosts, hosts_root):
        os.set_inheritable(fd, True)
    return hosts, hosts_root


def _prune(needed: list[str]) -> None:
    """Takes away every mount that no needed path is below of. The host can then unmount, too, what it likes."""
    with open("/proc/self/mountinfo", "rb") as file:
        found = [line.split(b" ") for line in file]
    targets = [(unescaped(words[4]), words[words.index(b"-") + 1]) for words in found]
    needed = [*needed, *_KERNELS, *(target for target, kind in targets if kind in (b"cgroup", b"cgroup2"))]
    for target, _ in reversed(targets):
        if not any(path == target or path.startswith(f"{target.rstrip('/')}/") for path in needed):
            # Gone already with what it was mounted on, or out of reach below another mount.
            with contextlib.suppress(OSError):
                libc.umount(target, libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
