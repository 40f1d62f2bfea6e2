"""Reaching into another network namespace."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from engine.errors import SystemFailure
from engine.network.netlink import Netlink

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise SystemFailure(f"can't enter a network namespace: {os.strerror(code)}", code)


def open_netlink(netns: int) -> Netlink:
    """An rtnetlink socket that belongs to the namespace behind descriptor `netns`.

    The calling thread is in that namespace for a moment: call it from a thread of one's own.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(netns)
        try:
            return Netlink()
        finally:
            _enter(own)
    finally:
        os.close(own)


def open_netns(path: Path) -> int:
    """A descriptor of the namespace at `path`. Raises SystemFailure when its last process is gone."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(f"network namespace {path}: {error.strerror}", error.errno) from error
