"""A store of its own for each test, and trees to make layers of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.images.config import ContainerConfig, ImageConfig, RootFS
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(tmp_path / "images")
    yield made
    made.close()


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """What a container may have written: one of everything."""
    folder = tmp_path / "upper"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/passwd").write_text("root:x:0:0\n")
    (folder / "etc/shadow").write_text("secret\n")
    (folder / "etc/shadow").chmod(0o640)
    os.chown(folder / "etc/shadow", 0, 42)
    (folder / "empty").mkdir(mode=0o700)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    (folder / "bin").mkdir()
    (folder / "bin/tool").write_bytes(os.urandom(300_000))
    (folder / "bin/tool").chmod(0o4755)
    os.link(folder / "bin/tool", folder / "bin/twin")
    os.symlink("tool", folder / "bin/link")
    os.mkfifo(folder / "pipe")
    os.setxattr(folder / "etc/passwd", "user.note", b"kept\0")
    (folder / "näme \n").write_text("odd")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_text("not UTF-8")
    (folder / ("long" * 30)).mkdir()
    (folder / ("long" * 30) / ("n" * 200)).write_text("deep")
    os.utime(folder / "etc/passwd", (1_000_000_000, 1_000_000_000))
    return folder


@pytest.fixture
def make_image(store: ImageStore, tmp_path: Path) -> Callable[..., Image]:
    """`make_image({"path": "content"}, name="x:1", parent=image)`: one layer on top of the parent's."""
    count = iter(range(1000))

    def make(files: dict[str, str], name: str | None = None, parent: Image | None = None) -> Image:
        folder = tmp_path / f"made{next(count)}"
        folder.mkdir()
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        chains = parent.config.chain_ids if parent else []
        layer = store.add_layer_from_dir(chains[-1] if chains else None, folder)
        below = parent.config.rootfs.diff_ids if parent else ()
        config = ImageConfig(
            architecture="amd64",
            created="2024-01-01T00:00:00Z",
            config=ContainerConfig(env=("A=b",), cmd=("sh",)),
            rootfs=RootFS((*below, layer.diff_id)),
        )
        reference = Reference.parse(name) if name else None
        return store.create_image(config, [layer], reference, parent=parent.id if parent else None)

    return make
