"""Images in Docker's JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.api.negotiate import Version
from engine.containers import times
from engine.images.config import ContainerConfig, container_config_json
from engine.images.image import Image

if TYPE_CHECKING:
    from engine.images.store import ImageStore

_ALWAYS_THERE: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
"""What scripts find in the config of any image, before API 1.50 left out what is empty."""


def summary(image: Image, names: Sequence[str] | None = None) -> dict[str, Any]:
    """One element of Docker's image list; `names`: only these of its names."""
    return {
        "Containers": -1,
        "Created": times.parse_rfc3339(image.created) // 1_000_000_000,
        "Id": image.id,
        "Labels": image.config.config.labels or None,
        "ParentId": image.parent or "",
        "RepoDigests": [name for name in image.digests if names is None or name in names],
        "RepoTags": [name for name in image.tags if names is None or name in names],
        "SharedSize": -1,
        "Size": image.size,
    }


def described(image: Image, version: Version, folders: Sequence[str], tagged: float) -> dict[str, Any]:
    """Docker's image JSON; `folders` are its unpacked layers, the topmost first, `tagged` is the last tag's time."""
    config = image.config
    history = config.history
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent or "",
        "Comment": image.comment or (history[-1].comment if history else ""),
        "Created": image.created,
        "DockerVersion": "",
        "Author": config.author,
        "Config": _config(config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": _folders(folders)},
        "RootFS": {"Type": "layers", "Layers": list(config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": times.rfc3339(times.from_unix(tagged))},
    }
    if config.variant:
        shown["Variant"] = config.variant
    if version < (1, 45):
        # docker-compose 1 takes from there which volumes to carry over to the next container.
        shown |= {"Container": "", "ContainerConfig": shown["Config"]}
    if version < (1, 44):
        shown["VirtualSize"] = image.size
    return shown


def _config(config: ContainerConfig) -> dict[str, Any]:
    return _ALWAYS_THERE | container_config_json(config)


def _folders(folders: Sequence[str]) -> dict[str, str] | None:
    if not folders:
        return None
    upper, *lower = folders
    return {"UpperDir": upper, **({"LowerDir": ":".join(lower)} if lower else {})}


def usage(store: ImageStore, images: Sequence[Image], used: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """(summaries with what each shares with others and how many containers use it, bytes of all layers).

    `used` has the image ID of each container.
    """
    sizes: dict[str, int] = {}
    for image in images:
        for chain in image.config.chain_ids:
            layer = None if chain in sizes else store.layer(chain)
            if layer is not None:
                sizes[chain] = layer.size
    holders = Counter(chain for image in images for chain in set(image.config.chain_ids))
    containers = Counter(used)
    shown = [
        summary(image)
        | {
            "SharedSize": sum(sizes.get(chain, 0) for chain in image.config.chain_ids if holders[chain] > 1),
            "Containers": containers[image.id],
        }
        for image in images
    ]
    return shown, sum(sizes.values())
