"""What those who wait in the pool do beforehand, so that it costs less when time counts.

After a fork the first touch of each page costs a fault, and a copy where it is written to; Python writes to almost all
that it reads. Whoever has gone through the motions once has these pages. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os

from engine.kernel import capabilities, libc
from engine.kernel.paths import openat2
from engine.runtime.zygote import rootfs

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

_NOWHERE = "/proc/self/fd/-1"


def build(packet: bytes) -> None:
    """All that a container's first process does but what changes anything, with a request as it may expect."""
    request = json.loads(packet)
    spec = request["spec"]
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount in spec.get("mounts", ()):
            _mount(root, mount)
        for path in spec.get("linux", {}).get("maskedPaths", ()):
            with contextlib.suppress(OSError):
                os.stat(path)
    finally:
        os.close(root)
    _drop(request, spec["process"])


def _mount(root: int, mount: dict[str, Any]) -> None:
    flags, _, data = rootfs.split_options(mount.get("options", []))
    with contextlib.suppress(OSError):
        os.close(openat2(root, mount["destination"], os.O_PATH))
    with contextlib.suppress(OSError):
        libc.mount(mount.get("source") or "none", _NOWHERE, mount.get("type") or "none", flags, data or None)


def _drop(request: dict[str, Any], process: dict[str, Any]) -> None:
    capabilities.masks(process.get("capabilities") or {})
    for bit in range(len(capabilities.NAMES)):
        with contextlib.suppress(OSError):
            libc.prctl(libc.PR_CAPBSET_READ, bit)
    program = bytes.fromhex(request.get("seccomp") or "")
    with contextlib.suppress(OSError):
        # There is no such operation: the kernel looks no further.
        libc.seccomp_load(program, flags=0xFFFFFFFF)
    environment = dict(pair.partition("=")[::2] for pair in process.get("env", ()))
    for folder in environment.get("PATH", "").split(":"):
        os.path.isfile(f"{folder}/{process['args'][0]}")
