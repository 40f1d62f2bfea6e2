"""A disk without a byte left: what takes room is refused in one line, and removing things works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import SystemFailure
from engine.images.config import ImageConfig
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests.engine import disks

pytestmark = pytest.mark.kernel


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    with disks.small(tmp_path / "small", 6) as path:
        yield path


def test_images_can_be_removed_from_a_disk_that_is_full(small: Path) -> None:
    store = ImageStore(small / "images")
    (small / "upper").mkdir()
    (small / "upper/file").write_bytes(os.urandom(1 << 20))
    layer = store.add_layer_from_dir(None, small / "upper")
    image = store.create_image(ImageConfig(architecture="amd64"), [layer], Reference.parse("a:1"))
    ballast = disks.fill(small)
    try:
        for number in range(2000):  # until even the catalogue's log is full
            store.tag(image.id, Reference.parse(f"a:{number}"))
    except SystemFailure as error:
        assert str(error) == "cannot write the image catalogue: no space left on the disk"  # noqa: PT017
    else:
        pytest.fail("there was no room")
    for name in store.get(image.id).tags:
        store.remove(name)
    assert store.list(all=True) == []
    assert os.statvfs(small).f_bavail > 0
    ballast.unlink()
    store.collect()
    assert (store.root / "reserve").stat().st_size == 1 << 20, "kept again"
    store.close()
