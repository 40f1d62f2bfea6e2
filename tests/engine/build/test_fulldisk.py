"""A disk that is full in the middle of a build: one clear line, nothing half-written, all well once there is room."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.build import Builder, BuildRequest, StepError, receive
from engine.config import EngineConfig
from engine.errors import SystemFailure
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests.engine import disks
from tests.engine.build.conftest import FakeRunner

pytestmark = pytest.mark.kernel
TEXT = b"FROM scratch\nCOPY big /\nRUN write /b b\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MiB."""
    with disks.small(tmp_path / "small", 5) as path:
        yield path


async def pull(reference: Reference, platform: object) -> Image:
    raise AssertionError(reference)


async def test_copy_and_commit(small: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "big").write_bytes(os.urandom(3 << 20))
    config = EngineConfig(data_root=small, exec_root=tmp_path / "x")
    images = ImageStore(small / "images")
    builder = Builder(config, images, FakeRunner())
    ballast = small / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    request = BuildRequest(context=context, dockerfile_content=TEXT)
    with pytest.raises(StepError, match="Dockerfile:2: COPY: No space left on device: make room where the engine"):
        await builder.build(request, pull, lambda event: None)
    assert not list((small / "build/steps").iterdir())
    assert list(images.layers.folders()) == []
    ballast.unlink()
    image = await builder.build(request, pull, lambda event: None)
    assert len(image.config.rootfs.diff_ids) == 2
    builder.close()
    images.close()


async def test_a_context_that_does_not_fit(small: Path) -> None:
    async def stream() -> AsyncIterator[bytes]:
        header = bytearray(
            b"big".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"00100000000\0" + b"0" * 11 + b"\0"
        )
        header += b" " * 8 + b"0"
        header += bytes(512 - len(header))
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        yield bytes(header)
        for _ in range(16):
            yield bytes(1 << 20)

    with pytest.raises(SystemFailure, match="the build context could not be kept: No space left on device"):
        await receive(stream(), small / "contexts")
    assert os.statvfs(small).f_bavail > 900, "nothing of it stays"
