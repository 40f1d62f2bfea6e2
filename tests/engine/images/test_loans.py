"""Snapshots of finished containers: nothing is copied, and nothing is lost whatever becomes of the container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import NotFound, SystemFailure
from engine.images.image import Image
from engine.images.snapshot import commit
from engine.images.store import ImageStore

pytestmark = pytest.mark.kernel
Make = Callable[..., Image]
SHIFT = 0x70000000


def same(store: ImageStore, image: Image, upper: Path) -> bool:
    """Whether the image's topmost layer has the files that the container had, with their true owners."""
    top = store.lowerdirs(image.id)[0]
    assert (top / "etc/shadow").stat().st_gid == 42
    assert (top / "bin/tool").stat().st_mode & 0o7777 == 0o4755
    return (top / "etc/shadow").read_text() == "secret\n" and top != upper


@pytest.fixture
def shifted(upper: Path) -> Path:
    """The same as a container in a user namespace leaves it."""
    for path in (upper, *upper.rglob("*")):
        status = path.lstat()
        os.chown(path, status.st_uid + SHIFT, status.st_gid + SHIFT, follow_symlinks=False)
    (upper / "bin/tool").chmod(0o4755)
    return upper


def test_the_folder_stays_until_its_container_goes(store: ImageStore, make_image: Make, shifted: Path) -> None:
    inode = (shifted / "bin/tool").stat().st_ino
    base = make_image({"base": "1"})
    blobs = set(store.blobs)
    image = commit(store, upper=shifted, parent=base, lend=True, id_shift=SHIFT)
    assert store.loans.has(shifted)
    assert set(store.blobs) - blobs == {image.id}, "nothing was packed"
    assert len(store.layers_of(image.id)) == 2
    store.loans.take(shifted)
    assert not shifted.exists()
    assert (store.lowerdirs(image.id)[0] / "bin/tool").stat().st_ino == inode
    assert same(store, image, shifted)
    assert store.catalog.loans() == []


def test_it_is_packed_before_it_changes(store: ImageStore, make_image: Make, shifted: Path) -> None:
    image = commit(store, upper=shifted, parent=make_image({"base": "1"}), lend=True, id_shift=SHIFT)
    store.loans.recall(shifted)
    assert not store.loans.has(shifted)
    (shifted / "etc/shadow").write_text("changed")
    assert same(store, image, shifted)


@pytest.mark.parametrize("ask", ["files", "bytes"])
def test_both_can_be_had_while_the_container_is_there(
    store: ImageStore, make_image: Make, shifted: Path, ask: str
) -> None:
    image = commit(store, upper=shifted, parent=make_image({"base": "1"}), lend=True, id_shift=SHIFT)
    if ask == "bytes":
        store.manifest_of(image)
    assert same(store, image, shifted)
    assert shifted.exists()
    store.loans.take(shifted)
    assert same(store, image, shifted)


def test_two_images_of_one_folder(store: ImageStore, make_image: Make, upper: Path) -> None:
    base = make_image({"base": "1"})
    one = commit(store, upper=upper, parent=base, lend=True, epoch=1_000_000_500)
    two = commit(store, upper=upper, parent=base, lend=True)
    assert one.config.chain_ids[-1] != two.config.chain_ids[-1]
    store.loans.take(upper)
    assert not upper.exists()
    assert same(store, one, upper)
    assert same(store, two, upper)


def test_an_image_that_is_gone_takes_no_folder(store: ImageStore, make_image: Make, upper: Path) -> None:
    image = commit(store, upper=upper, parent=make_image({"base": "1"}), lend=True)
    store.remove(image.id)
    store.collect(grace=-1)
    assert store.catalog.loans() == []
    store.loans.take(upper)
    assert upper.exists(), "its owner's to remove"


def test_another_engine_knows_of_it(store: ImageStore, make_image: Make, upper: Path) -> None:
    base = make_image({"base": "1"})
    image = commit(store, upper=upper, parent=base, lend=True)
    store.close()
    again = ImageStore(store.root)
    assert again.loans.has(upper)
    assert same(again, again.get(image.id), upper)
    again.close()


def test_what_was_changed_all_the_same_is_no_layer(store: ImageStore, make_image: Make, upper: Path) -> None:
    image = commit(store, upper=upper, parent=make_image({"base": "1"}), lend=True)
    (upper / "etc/shadow").write_text("changed behind everyone's back")
    with pytest.raises(SystemFailure, match="was changed on disk"):
        store.manifest_of(image)
    shutil.rmtree(upper)
    store.close()
    with pytest.raises(NotFound, match="is missing"):
        ImageStore(store.root).lowerdirs(image.id)
