"""What a container's user asked to mount → its mount points. Pure: nothing is looked up, nothing is made."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable

from engine.containers import names
from engine.containers.hostconfig import HostConfig, MountRequest
from engine.containers.model import ContainerConfig, MountPoint
from engine.errors import InvalidInput

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_IGNORED = frozenset({"z", "Z", "cached", "delegated", "consistent", "rbind", "bind"})
VolumesOf = Callable[[str], list[MountPoint]]


def plan(config: ContainerConfig, host_config: HostConfig, volumes_of: VolumesOf) -> list[MountPoint]:
    """The mount points, in Docker's order. Volumes have no `source` yet, anonymous ones no name.

    `volumes_of(container)` answers `--volumes-from`. Raises InvalidInput.
    """
    points: dict[str, MountPoint] = {}
    for request in host_config.volumes_from:
        for point in _inherited(request, volumes_of):
            points[point.destination] = point
    asked: set[str] = set()
    explicit = [
        *(parse_bind(bind) for bind in host_config.binds),
        *(_from_request(request) for request in host_config.mounts),
    ]
    for point in explicit:
        if point.destination in asked or point.destination in host_config.tmpfs:
            raise InvalidInput(f"Duplicate mount point: {point.destination}")
        asked.add(point.destination)
        points[point.destination] = point
    for destination in config.volumes:
        clean = target(destination)
        if clean not in points and clean not in host_config.tmpfs:
            points[clean] = MountPoint(type="volume", destination=clean, driver="local", anonymous=True, copy_up=True)
    for destination in host_config.tmpfs:
        target(destination)
    return list(points.values())


def target(path: str) -> str:
    """A clean, absolute destination that is not the root. Raises InvalidInput."""
    if "\0" in path or not path.startswith("/"):
        raise InvalidInput(f"invalid mount path: {path!r} mount path must be absolute")
    clean = posixpath.normpath(path)
    # POSIX lets a path start with exactly two slashes, and normpath keeps them.
    clean = "/" + clean.lstrip("/")
    if clean == "/":
        raise InvalidInput("invalid mount: destination can't be '/'")
    return clean


def parse_bind(text: str) -> MountPoint:
    """`-v`: `[SOURCE:]DESTINATION[:OPTIONS]`. A missing folder of the host is made, as Docker does here."""
    parts = text.split(":")
    if not text or "" in parts or len(parts) > 3:
        raise InvalidInput(f"invalid volume specification: {text!r}")
    if len(parts) == 1:
        return MountPoint(type="volume", destination=target(parts[0]), driver="local", anonymous=True, copy_up=True)
    source, destination = parts[0], target(parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    options = _mode(text, mode)
    common: dict[str, object] = {
        "destination": destination,
        "mode": mode,
        "rw": "ro" not in options,
    }
    if source.startswith("/"):
        propagation = next((option for option in options if option in _PROPAGATION), "rprivate")
        return MountPoint(
            type="bind",
            source=_source(source),
            propagation=propagation,
            options=["rbind", "create"],
            **common,  # type: ignore[arg-type]
        )
    if options & _PROPAGATION:
        raise InvalidInput(f"invalid mode: {mode!r} in volume specification {text!r}: volumes have no propagation")
    return MountPoint(
        type="volume",
        name=names.validate(source, "volume"),
        driver="local",
        copy_up="nocopy" not in options,
        **common,  # type: ignore[arg-type]
    )


def _mode(text: str, mode: str) -> set[str]:
    options = set(mode.split(",")) if mode else set()
    unknown = options - _PROPAGATION - _IGNORED - {"ro", "rw", "nocopy"}
    if unknown or {"ro", "rw"} <= options or len(options & _PROPAGATION) > 1:
        raise InvalidInput(f"invalid mode: {mode!r} in volume specification {text!r}")
    return options


def _source(path: str) -> str:
    if "\0" in path or not path.startswith("/"):
        raise InvalidInput(f"invalid mount path: {path!r} mount path must be absolute")
    return "/" + posixpath.normpath(path).lstrip("/")


def _from_request(request: MountRequest) -> MountPoint:
    destination = target(request.target)
    rw = not request.read_only
    if request.type == "bind":
        bind = request.bind_options
        if not request.source:
            raise InvalidInput("invalid mount config for type 'bind': field Source must not be empty")
        propagation = bind.propagation or "rprivate"
        if propagation not in _PROPAGATION:
            raise InvalidInput(f"invalid mount config for type 'bind': propagation {propagation!r}")
        options = ["bind" if bind.non_recursive else "rbind"]
        options += ["create"] if bind.create_mountpoint else []
        options += ["shallow"] if bind.read_only_non_recursive else []
        return MountPoint(
            type="bind",
            source=_source(request.source),
            destination=destination,
            rw=rw,
            propagation=propagation,
            options=options,
        )
    if request.type == "volume":
        volume = request.volume_options
        return MountPoint(
            type="volume",
            name=names.validate(request.source, "volume") if request.source else "",
            destination=destination,
            driver=volume.driver_config.name or "local",
            rw=rw,
            mode="z",
            anonymous=not request.source,
            copy_up=not volume.no_copy and not volume.subpath,
            subpath=_subpath(volume.subpath),
            labels=dict(volume.labels),
        )
    if request.type == "tmpfs":
        if request.source:
            raise InvalidInput("invalid mount config for type 'tmpfs': field Source must not be specified")
        tmpfs = request.tmpfs_options
        options = [f"size={tmpfs.size_bytes}"] if tmpfs.size_bytes else []
        options += [f"mode={tmpfs.mode:o}"] if tmpfs.mode else []
        options += split_options(",".join(_tmpfs_option(option) for option in tmpfs.options))
        return MountPoint(type="tmpfs", destination=destination, rw=rw, options=options)
    raise InvalidInput(f"mount type unknown: {request.type!r}: use bind, volume or tmpfs")


def _tmpfs_option(words: list[str]) -> str:
    """`["exec"]` or `["uid", "5"]`, as the API has them."""
    option = "=".join(words)
    if not 0 < len(words) < 3 or "," in option:
        raise InvalidInput(f"invalid tmpfs option {words!r}")
    return option


def _subpath(path: str) -> str:
    if not path:
        return ""
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidInput(f"subpath {path!r} must be a relative path within the volume")
    return posixpath.normpath(path)


def _inherited(request: str, volumes_of: VolumesOf) -> Iterable[MountPoint]:
    container, _, mode = request.partition(":")
    if not container or mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidInput(f"invalid volumes-from specification: {request!r}: invalid mode: {mode}")
    for point in volumes_of(container):
        if point.type == "tmpfs":
            continue
        yield MountPoint(
            type=point.type,
            name=point.name,
            source=point.source,
            destination=point.destination,
            driver=point.driver,
            mode=mode,
            rw=point.rw and mode != "ro",
            propagation=point.propagation,
            options=list(point.options),
            subpath=point.subpath,
            # Whoever goes last takes the nameless ones along.
            anonymous=point.anonymous,
        )


def split_options(text: str) -> list[str]:
    """The options of one `--tmpfs`, checked. Raises InvalidInput."""
    options = [option for option in text.split(",") if option]
    for option in options:
        name, _, value = option.partition("=")
        known = name in _TMPFS_VALUES if "=" in option else option in _TMPFS_FLAGS
        if not known or any(character in value for character in "\0,\n"):
            raise InvalidInput(f"invalid tmpfs option {option!r}")
    return options


_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"})
_TMPFS_FLAGS = frozenset(
    (
        "rw",
        "ro",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
    )
)
