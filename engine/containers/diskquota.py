"""`--storage-opt size=`: how much a container may write into its own layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from engine.errors import InvalidInput, SystemFailure
from engine.kernel import quota

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS = {unit: 1 << 10 * power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


def size(options: Mapping[str, str]) -> int:
    """In bytes; 0 where none was asked for. Raises InvalidInput."""
    for name in options:
        if name != "size":
            raise InvalidInput(f"unknown option {name!r} for --storage-opt: there is size, written as size=10g")
    if "size" not in options:
        return 0
    match = _SIZE.fullmatch(options["size"])
    found = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if found <= 0:
        raise InvalidInput(f"invalid size {options['size']!r} for --storage-opt: write it as size=10g")
    return found


def check(options: Mapping[str, str], data_root: Path) -> None:
    """Raises InvalidInput, also where the disk of `data_root` can't hold anybody to a size."""
    if size(options) and not quota.offered(str(data_root)):
        raise InvalidInput(
            f"--storage-opt is supported only where the file system of {data_root} has project quotas: "
            "mount it (xfs or ext4) with prjquota"
        )


def hold(options: Mapping[str, str], container_id: str, upper: Path, work: Path) -> None:
    """Before each start. Raises SystemFailure."""
    most = size(options)
    if most:
        try:
            quota.limit([str(upper), str(work)], _project(container_id), most)
        except OSError as error:
            raise SystemFailure(f"--storage-opt size: {error.strerror}", error.errno) from None


def _project(container_id: str) -> int:
    """Two containers with a size in sixteen million may have the same, and share the smaller."""
    return 1 << 30 | int(container_id[:6], 16)
