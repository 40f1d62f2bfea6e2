"""Reaching into another network namespace."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import SystemFailure
from engine.kernel import libc
from engine.network.netlink import Netlink


def _enter(descriptor: int) -> None:
    try:
        libc.setns(descriptor, libc.CLONE_NEWNET)
    except OSError as error:
        raise SystemFailure(f"can't enter a network namespace: {error.strerror}", error.errno) from error


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
