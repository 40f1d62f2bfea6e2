"""Disks that are full: one clear line, nothing half-made, and all well again once there is room."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.errors import EngineError, SystemFailure, Unavailable
from engine.images.archive import load, save
from engine.images.config import ImageConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.snapshot import commit
from engine.images.store import ImageStore
from engine.registry.client import Patience, RegistryClient, pull, push
from engine.registry.server import make_app, start
from engine.registry.server.storage.collect import Collection, Rule
from engine.registry.server.storage.store import Storage
from tests.engine import disks
from tests.engine.registry.storagecrashes import push as push_files
from tests.engine.registry.storagecrashes import verify, whole

pytestmark = pytest.mark.kernel

PATIENCE = Patience(connect=5, stall=5, attempts=2, first=0.01, longest=0.1)


@dataclass
class Disk:
    """A small file system of its own."""

    path: Path

    def grow(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disks.small(tmp_path / "small", 3) as path:
        yield Disk(path)


@pytest.fixture
def big(tmp_path: Path) -> Iterator[tuple[ImageStore, Image]]:
    """A store on another disk, and an image in it that the small one can't hold."""
    store = ImageStore(tmp_path / "roomy")
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "random").write_bytes(os.urandom(2_500_000))
    (folder / "zero").write_bytes(bytes(2_000_000))
    layer = store.add_layer_from_dir(None, folder)
    yield store, store.create_image(ImageConfig(architecture="amd64"), [layer], Reference.parse("big"))
    store.close()


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient(patience=PATIENCE) as made:
        yield made


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[[Path], object]]:
    runners = []

    async def serving(root: Path) -> str:
        runner, port = await start(make_app(root), "127.0.0.1", 0)
        runners.append(runner)
        return f"127.0.0.1:{port}"

    yield serving
    for runner in runners:
        await runner.cleanup()


def is_clean(store: ImageStore) -> bool:
    return not store.list(all=True) and not list(store.layers.folders()) and not list(store.root.glob("unpacking/*/*"))


async def test_pulling(disk, big, client, serve, tmp_path):
    here, image = big
    reference = Reference.parse(f"{await serve(tmp_path / 'registry')}/big:1")
    await push(client, here, image, reference)
    there = ImageStore(disk.path / "images")
    try:
        with pytest.raises(SystemFailure, match="no space left") as caught:
            await pull(client, reference, there)
        assert "\n" not in str(caught.value)
        assert is_clean(there)
        disk.grow()
        assert (await pull(client, reference, there)).id == image.id
    finally:
        there.close()


async def test_pushing(disk, big, client, serve, tmp_path):
    here, image = big
    reference = Reference.parse(f"{await serve(disk.path / 'registry')}/big:1")
    (disk.path / "ballast").write_bytes(bytes(1_000_000))
    with pytest.raises(Unavailable, match="disk failed: No space left") as caught:
        await push(client, here, image, reference)
    assert "\n" not in str(caught.value)
    assert not list((disk.path / "registry/repositories").rglob("_tags"))
    disk.grow()
    await push(client, here, image, reference)
    there = ImageStore(tmp_path / "there")
    assert (await pull(client, reference, there)).id == image.id
    there.close()


def test_loading_and_committing(disk, big, tmp_path):
    here, image = big
    archive = io.BytesIO()
    save(here, ["big"], archive.write)
    there = ImageStore(disk.path / "images")
    try:
        base = there.create_image(ImageConfig(architecture="amd64"), [], None)
        for work in (
            lambda: load(there, io.BytesIO(archive.getvalue())),
            lambda: commit(there, upper=here.lowerdirs(image.id)[0], parent=base),
        ):
            (disk.path / "ballast").write_bytes(bytes(600_000))
            with pytest.raises(EngineError, match=r"[nN]o space left"):
                work()
            (disk.path / "ballast").unlink()
            assert [each.id for each in there.list(all=True)] == [base.id]
            assert not list(there.root.glob("unpacking/*/*"))
            assert not list((there.root / "ingest").iterdir())
        disk.grow()
        assert [each.id for each in load(there, io.BytesIO(archive.getvalue()))] == [image.id]
    finally:
        there.close()


def test_collecting_makes_room(disk):
    """Where nothing fits any more, what nobody needs can still go."""
    store = ImageStore(disk.path / "images")
    try:
        folder = disk.path / "content"
        folder.mkdir()
        (folder / "random").write_bytes(os.urandom(500_000))
        layer = store.add_layer_from_dir(None, folder)
        image = store.create_image(ImageConfig(architecture="amd64"), [layer], Reference.parse("old"))
        disks.fill(disk.path)
        store.remove(image.id)
        store.collect(grace=-1)
        assert not list(store.layers.folders())
        assert os.statvfs(disk.path).f_bavail * os.statvfs(disk.path).f_bsize > 400_000
    finally:
        store.close()


def test_the_registry_collects_on_a_full_disk(disk):
    storage = Storage(disk.path / "registry")
    try:
        kept = push_files(storage, "kept")
        push_files(storage, "old")
        os.utime(storage.layout.tags("team/app") / "old", (1, 1))
        disks.fill(disk.path)
        done = Collection(storage, Rule(keep=1, grace=-1)).run()
        assert (done.tags, len(done.manifests), done.blobs) == (["team/app:old"], 2, 3)
        verify(storage)
        whole(storage, "team/app", kept)
    finally:
        storage.close()
