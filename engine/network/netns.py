"""Reaching into another network namespace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.errors import SystemFailure
from engine.kernel import libc
from engine.network.netlink import Netlink

_T = TypeVar("_T")


def _enter(descriptor: int) -> None:
    try:
        libc.setns(descriptor, libc.CLONE_NEWNET)
    except OSError as error:
        raise SystemFailure(f"can't enter a network namespace: {error.strerror}", error.errno) from error


def inside(netns: int, function: Callable[[], _T]) -> _T:
    """`function` in the namespace behind descriptor `netns`. Sockets it makes belong there ever after.

    The calling thread is in that namespace for a moment: call it from a thread of one's own.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(netns)
        try:
            return function()
        finally:
            _enter(own)
    finally:
        os.close(own)


def open_netlink(netns: int) -> Netlink:
    """An rtnetlink socket that belongs to the namespace behind descriptor `netns`."""
    return inside(netns, Netlink)


def open_netns(path: Path) -> int:
    """A descriptor of the namespace at `path`. Raises SystemFailure when its last process is gone."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(f"network namespace {path}: {error.strerror}", error.errno) from error
