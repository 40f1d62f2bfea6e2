"""Mount namespaces that a host keeps in files, as snapd does: a tree with such a file in it can't be moved anywhere
(ELOOP, for the namespace could come to hold itself). What is bound into a container is shown without them.
"""

from __future__ import annotations

from engine.kernel import libc
from engine.kernel.paths import unescaped
from engine.runtime.zygote.ownmounts import elsewhere

_SIGN = b" mnt:["


def any_here() -> bool:
    """Whether there is one among the mounts of this namespace."""
    with open("/proc/self/mountinfo", "rb") as mounts:
        return _SIGN in mounts.read()


def without(source: str, flags: int) -> int:
    """`source` as open_tree(2) gives it, out of a copy of the mounts in which those files are covered no more.
    Only for a process with one thread."""
    with elsewhere():
        libc.unshare(libc.CLONE_NEWNS)
        _take_down()
        return libc.open_tree(libc.AT_FDCWD, source, flags)


def _take_down() -> None:
    with open("/proc/self/mountinfo", "rb") as mounts:
        lines = [line.split(b" ") for line in mounts]
    points = {line[0]: unescaped(line[4]) for line in lines}
    for line in reversed(lines):
        if line[3].startswith(_SIGN.strip()):
            # Else it would be taken down on the host, too, where that shares what is mounted there.
            libc.mount(None, points[line[1]], None, libc.MS_PRIVATE)
            libc.umount(points[line[0]], libc.MNT_DETACH)
