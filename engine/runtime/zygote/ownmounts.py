"""A mount namespace of the zygote's own, with the zygote's root as the namespace's; and the way back to the host's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from engine.kernel import libc


class HostMounts:
    """The mounts among which the engine was started, as they are now: what containers are given is looked up there.

    A host whose root is not shared (one without systemd, often) tells nobody of what it mounts later on.
    """

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


def enter() -> tuple[int, int]:
    """Leaves the host's mount namespace for a copy that the host's changes still reach, and never the other way.
    Returns what `HostMounts` needs, for a program that is executed.

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
    libc.mount(None, "/", None, libc.MS_REC | libc.MS_SLAVE)
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
    for fd in (hosts, hosts_root):
        os.set_inheritable(fd, True)
    return hosts, hosts_root
