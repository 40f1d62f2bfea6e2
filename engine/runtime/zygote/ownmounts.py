"""A mount namespace of the zygote's own, with the zygote's root as the namespace's."""

from __future__ import annotations

import os

from engine.kernel import libc


def enter() -> None:
    """Leaves the host's mount namespace for a copy that the host's changes still reach, and never the other way.

    In a chroot the namespace's root is another one than ours, and setns(2) goes to the namespace's: whoever was
    executed in a container would stand in the host's root. So ours is made the namespace's, and what is around
    it is let go.
    """
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
