"""Mounts that are made outside of a container and handed in: its layers, and what of the host is bound into it.

They are made here, with the host's rights and names, and given to the container's init as descriptors: so a folder that
the container's root may not even pass through can be bound, no link is followed in a place that the container rules,
and ids can be mapped. Nothing of it is ever seen on the host.
"""

from __future__ import annotations

import contextlib
import os

from engine.kernel import libc
from engine.kernel.paths import RESOLVE_BENEATH, openat2
from engine.runtime.zygote import pinned
from engine.runtime.zygote.birth import outside
from engine.runtime.zygote.layers import Layers
from engine.runtime.zygote.ownmounts import HostMounts, elsewhere

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

BENEATH = "x-beneath="
"""An option of a bind: its source is to be found below that folder, whatever links lead to it. Not of the standard."""
NAMESPACE = "x-namespace="
"""An option of a bind: its source is what the mount namespace at that path has there. Not of the standard."""
LAYER = "lowerdir+="
"""An option of an overlay that is made out here: one of its folders, topmost first. As fsconfig(2) has it."""

_ATTRIBUTES = {
    "ro": libc.MOUNT_ATTR_RDONLY,
    "nosuid": libc.MOUNT_ATTR_NOSUID,
    "nodev": libc.MOUNT_ATTR_NODEV,
    "noexec": libc.MOUNT_ATTR_NOEXEC,
    "nodiratime": libc.MOUNT_ATTR_NODIRATIME,
}
_TIMES = {
    "relatime": 0,
    "noatime": libc.MOUNT_ATTR_NOATIME,
    "strictatime": libc.MOUNT_ATTR_STRICTATIME,
}
_PROPAGATION = {
    "private": libc.MS_PRIVATE,
    "slave": libc.MS_SLAVE,
    "shared": libc.MS_SHARED,
    "unbindable": libc.MS_UNBINDABLE,
}


def is_bind(mount: dict[str, Any]) -> bool:
    """Also of layers of the host's that are shown as one."""
    options = mount.get("options", ())
    return mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(options) or is_layered(mount)


def is_layered(mount: dict[str, Any]) -> bool:
    return mount.get("type") == "overlay" and any(option.startswith(LAYER) for option in mount.get("options", ()))


def mounts(request: dict[str, Any], users: int | None, scratch: str, hosts: HostMounts) -> list[int]:
    """The overlay, if there is one, then each bind of the spec in its order; the caller's to close."""
    root, spec = request.get("rootfs"), request["spec"]
    binds = [mount for mount in spec.get("mounts", ()) if is_bind(mount)]
    trees: dict[int, int] = {}
    """By their place in the order."""
    layered: list[tuple[int, Layers, list[str]]] = []
    with contextlib.ExitStack() as stack:
        try:
            with hosts.entered():
                if root:
                    if users is not None:
                        _give_upper(root["upper"], spec)
                    layered.append((0, Layers(root, stack), []))
                pins = any("rbind" in mount.get("options", ()) for mount in binds) and pinned.any_here()
                for place, mount in enumerate(binds, 1):
                    if is_layered(mount):
                        options = mount["options"]
                        layered.append((place, Layers(_layers(options), stack), options))
                    else:
                        trees[place] = _bind(mount, users, pins=pins)
            for place, layers, options in layered:
                trees[place] = layers.shown(users, scratch)
                _set(trees[place], options)
        except OSError:
            for fd in trees.values():
                os.close(fd)
            raise
    return [trees[place] for place in sorted(trees)]


def _give_upper(upper: str, spec: dict[str, Any]) -> None:
    """A new upper folder belongs to whoever made it; it shows as the root folder, which the container's root owns."""
    owner = os.stat(upper)
    uid, gid = outside(spec, 0, 0)
    if owner.st_uid == 0 != uid:
        os.chown(upper, uid, gid)


def _layers(options: list[str]) -> dict[str, Any]:
    """Without `upperdir` nobody can write to it, whatever rights they have."""
    named = {key: value for key, _, value in (option.partition("=") for option in options)}
    return {
        "lower": [option[len(LAYER) :] for option in options if option.startswith(LAYER)],
        "upper": named.get("upperdir", ""),
        "work": named.get("workdir", ""),
        "volatile": "volatile" in options,
    }


def _tree(source: str, options: list[str], deep: int, *, pins: bool) -> int:
    flags = libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC | deep
    other = next((option[len(NAMESPACE) :] for option in options if option.startswith(NAMESPACE)), "")
    if other:
        return _tree_of(other, source, flags)
    above = next((option[len(BENEATH) :] for option in options if option.startswith(BENEATH)), "")
    if not above:
        return pinned.without(source, flags) if deep and pins else libc.open_tree(libc.AT_FDCWD, source, flags)
    # Containers write below that folder: what they put in the way meanwhile leads nowhere (CVE-2017-1002101).
    root = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = openat2(root, os.path.relpath(source, above), os.O_PATH, resolve=RESOLVE_BENEATH)
        try:
            return libc.open_tree(inside, "", flags | libc.AT_EMPTY_PATH)
        finally:
            os.close(inside)
    finally:
        os.close(root)


def _tree_of(namespace: str, source: str, flags: int) -> int:
    """What another container has at `source`."""
    there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with elsewhere():
            libc.setns(there, libc.CLONE_NEWNS)
            return libc.open_tree(libc.AT_FDCWD, source, flags)
    finally:
        os.close(there)


def _map(tree: int, users: int, *, recursive: bool) -> None:
    """Shows the ids of the tree as the namespace numbers them. A file system that can't do that (proc, some network
    ones) shows its own."""
    for deep in (True, False) if recursive else (False,):
        with contextlib.suppress(OSError):
            libc.mount_setattr(tree, attributes=libc.MOUNT_ATTR_IDMAP, userns=users, recursive=deep)
            return


def _set(tree: int, options: list[str]) -> None:
    wanted = set(options)
    attributes = sum(_ATTRIBUTES[option] for option in wanted & _ATTRIBUTES.keys())
    whole = sum(_ATTRIBUTES[option[1:]] for option in wanted if option.startswith("r") and option[1:] in _ATTRIBUTES)
    times = [_TIMES[option] for option in options if option in _TIMES]
    if attributes or times:
        clear = libc.MOUNT_ATTR__ATIME if times else 0
        libc.mount_setattr(tree, attributes=attributes | (times[-1] if times else 0), clear=clear)
    if whole:
        libc.mount_setattr(tree, attributes=whole, recursive=True)


def _bind(mount: dict[str, Any], users: int | None, *, pins: bool) -> int:
    """`pins`: whether there are mount namespaces that are kept in files."""
    options = mount.get("options", [])
    deep = "rbind" in options
    tree = _tree(mount["source"], options, libc.AT_RECURSIVE if deep else 0, pins=pins)
    try:
        if users is not None and not {"idmap", "ridmap"}.isdisjoint(options):
            _map(tree, users, recursive="ridmap" in options)
        _set(tree, options)
        for option in options:
            kind = _PROPAGATION.get(option.removeprefix("r"))
            if kind:
                libc.mount_setattr(tree, propagation=kind, recursive=option.startswith("r"))
    except OSError:
        os.close(tree)
        raise
    return tree
