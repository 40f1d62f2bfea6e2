"""Folders of cache mounts: who shares them, and when they go."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine.build.cachemounts import CacheMounts


@pytest.fixture
def caches(tmp_path: Path) -> CacheMounts:
    return CacheMounts(tmp_path / "caches")


def fill(folder: Path) -> None:
    (folder / "first").write_text("x")


async def test_sharing(caches: CacheMounts) -> None:
    async with caches.use("a", "shared", fill) as one, caches.use("a", "shared", fill) as two:
        assert one == two
    async with caches.use("b", "private", fill) as one, caches.use("b", "private", fill) as two:
        assert one != two
    async with caches.use("b", "private", fill) as again:
        assert again == one
    async with caches.use("a", "locked", fill) as one:
        waiting = asyncio.ensure_future(caches.use("a", "locked", fill).__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting == one


async def test_pruning_spares_what_is_in_use_or_young(caches: CacheMounts) -> None:
    async with caches.use("a", "shared", fill) as used:
        assert caches.prune(0) == 0
        assert used.exists()
    assert caches.prune(60) == 0
    os.utime(used, (0, 0))
    assert caches.prune(60) == 0, "a step may set its folder's time to anything"
    assert caches.prune(-1) > 0
    assert not used.exists()
    async with caches.use("a", "shared", fill) as fresh:
        assert [path.name for path in fresh.iterdir()] == ["first"]
