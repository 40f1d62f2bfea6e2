"""What must be true before `shipway up` starts anything."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable

from cli.layout import Address, Layout


def problems(layout: Layout) -> list[str]:
    """Each thing that stands in the way, as one line with its remedy. Empty: nothing does."""
    if os.geteuid() != 0:
        return ["shipway up needs root, for namespaces, mounts and nftables: run it with sudo"]
    found = [*kernel_problems(), *_programs()]
    for what, address in [
        ("the server", layout.server),
        ("the registry", layout.registry),
        ("the worker's metrics", layout.metrics),
    ]:
        found += _port(what, address)
    return found


def kernel_problems() -> Iterable[str]:
    """What the engine needs of the kernel and does not find."""
    from engine.kernel.doctor import inspect_kernel

    for finding in inspect_kernel():
        if not finding.ok and finding.required:
            yield f"{finding.name}: {finding.detail}: {finding.remedy}"


def _programs() -> Iterable[str]:
    for program, package in [("git", "git"), ("nft", "nftables")]:
        if shutil.which(program) is None:
            yield f"{program} is not on PATH: install the package {package}"


def _port(what: str, address: Address) -> Iterable[str]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            yield f"{what} cannot listen on {address}: {reason}: stop what uses it, or choose another address"
