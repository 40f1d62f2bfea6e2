"""Folders shown one over the other by overlayfs, as a mount that is attached nowhere. Standard library only.

Linux 6.7 and later take the folders one by one (`lowerdir+`), any number of them. Before, all of them go into one page
of mount(2)'s options, and mount(2) needs a place: there folders are named by descriptors, for the names of 127 layers
would not fit, and the mount is taken from its place at once.
"""

from __future__ import annotations

import contextlib
import errno
import os

from engine.kernel import libc

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN = ("redirect_dir=off", "metacopy=off", "index=off")
"""What some kernels do by default would write into a layer what nobody else could read."""
_one_by_one = True
"""Until the kernel has shown that it can't."""


def overlay(
    lower: Sequence[str],
    upper: str = "",
    work: str = "",
    *,
    options: Sequence[str] = (),
    place: str = "",
    attributes: int = 0,
) -> int:
    """The mount's descriptor, the caller's to close. `lower` is topmost first; without `upper` nobody can write.

    `options` are `name` or `name=value`. `place` is a folder that older kernels mount on for a moment; without one they
    do it in a mount namespace that nobody else sees. `attributes` are MOUNT_ATTR_*. Raises OSError.
    """
    global _one_by_one
    if _one_by_one:
        try:
            return overlay_at(lower, upper or None, work or None, options=options, attributes=attributes)
        except OSError as error:
            if error.errno != errno.EINVAL or takes_one_by_one():
                raise
        _one_by_one = False
    if place:
        return _by_page(lower, upper, work, options, place, attributes)
    from engine.kernel.aside import aside  # not in the zygote, which has a place and no threads

    return aside(lambda: _by_page(lower, upper, work, options, lower[0], attributes))


def takes_one_by_one() -> bool:
    """Whether this kernel knows `lowerdir+`: looks at the answer to a name that no folder has."""
    context = libc.fsopen("overlay")
    try:
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, "lowerdir+", "/\x01/no such folder")
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        os.close(context)
    # What Linux before 6.5 takes without a look.
    return False


def overlay_at(
    lower: Sequence[str | int],
    upper: str | int | None,
    work: str | int | None,
    *,
    options: Sequence[str] = (),
    attributes: int = 0,
) -> int:
    """As `overlay`, also of folders that are open (O_PATH will do), in mounts that may be attached nowhere themselves.

    Raises OSError; EINVAL also where the kernel can't do that: before Linux 6.7 none of it, before 6.15 no such mounts.
    """
    context = libc.fsopen("overlay")
    try:
        for layer in lower:
            _set(context, "lowerdir+", layer)
        if upper is not None and work is not None:
            _set(context, "upperdir", upper)
            _set(context, "workdir", work)
        for option in (*_PLAIN, *options):
            name, _, value = option.partition("=")
            if value:
                libc.fsconfig(context, libc.FSCONFIG_SET_STRING, name, value)
            else:
                libc.fsconfig(context, libc.FSCONFIG_SET_FLAG, name)
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE)
        return libc.fsmount(context, attributes)
    finally:
        os.close(context)


def _set(context: int, key: str, folder: str | int) -> None:
    if isinstance(folder, int):
        libc.fsconfig(context, libc.FSCONFIG_SET_FD, key, None, folder)
    else:
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, key, folder)


def _by_page(lower: Sequence[str], upper: str, work: str, options: Sequence[str], place: str, attributes: int) -> int:
    with contextlib.ExitStack() as stack:

        def named(folder: str) -> str:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        words = ["lowerdir=" + ":".join(map(named, lower))]
        if upper:
            words += [f"upperdir={named(upper)}", f"workdir={named(work)}"]
        libc.mount("overlay", place, "overlay", 0, ",".join([*words, *_PLAIN, *options]))
        try:
            tree = libc.open_tree(libc.AT_FDCWD, place, libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC)
        finally:
            libc.umount(place, libc.MNT_DETACH)
    if attributes:
        libc.mount_setattr(tree, attributes=attributes)
    return tree
