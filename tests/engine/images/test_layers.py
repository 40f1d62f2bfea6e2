"""Layers on disk: unpacked whole or not at all, once each, and packed again into the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from engine.errors import InvalidInput, NotFound
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images.blobs import BlobStore
from engine.images.catalog import Catalog
from engine.images.layers import LayerStore
from engine.images.spread import spread
from engine.images.store import ImageStore
from engine.images.unpack import Limits

pytestmark = pytest.mark.kernel


def tar_of(files: dict[str, bytes], **links: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 1_600_000_000
            tar.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.LNKTYPE, target
            tar.addfile(entry)
    return raw.getvalue()


def diff_id_of(tar: bytes) -> str:
    return "sha256:" + hashlib.sha256(tar).hexdigest()


def scratches(store: ImageStore) -> list[Path]:
    return list((store.root / "unpacking").glob("*/*"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_blob_becomes_a_folder(store: ImageStore, pack: object) -> None:
    tar = tar_of({"etc/motd": b"hello"})
    blob = store.blobs.put(pack(tar))  # type: ignore[operator]
    layer = store.import_layer(blob, diff_id_of(tar))
    assert layer.chain_id == layer.diff_id == diff_id_of(tar)
    assert layer.size == 5
    assert (store.layer_folder(layer.chain_id) / "etc/motd").read_bytes() == b"hello"
    assert scratches(store) == []


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (tar_of({"a": b"1"}), "instead of"),
        (gzip.compress(tar_of({"a": b"1"}))[:-10], "damaged gzip"),
        (b"nonsense" * 100, "malformed tar"),
        (tar_of({"../a": b"1"}), "outside"),
    ],
)
def test_of_a_bad_blob_nothing_is_kept(store: ImageStore, blob: bytes, message: str) -> None:
    wanted = "sha256:" + "0" * 64
    with pytest.raises(InvalidInput, match=message):
        store.import_layer(store.blobs.put(blob), wanted)
    assert store.layer(wanted) is None
    assert list(store.layers.folders()) == []
    assert scratches(store) == []


def test_a_layer_stands_on_its_parent(store: ImageStore) -> None:
    lower, upper = tar_of({"shared": b"1"}), tar_of({"own": b"2"})
    first = store.blobs.put(lower)
    second = store.blobs.put(upper)
    with pytest.raises(NotFound, match="unpack it first"):
        store.import_layer(second, diff_id_of(upper), diff_id_of(lower))
    below = store.import_layer(first, diff_id_of(lower))
    above = store.import_layer(second, diff_id_of(upper), below.chain_id)
    assert above.chain_id == digests.chain_id(below.chain_id, above.diff_id)
    assert store.layers.lowerdirs(above.chain_id) == (
        store.layer_folder(above.chain_id),
        store.layer_folder(below.chain_id),
    )


def test_one_layer_for_all_who_ask_at_once(store: ImageStore) -> None:
    tar = tar_of({f"file{i}": os.urandom(2000) for i in range(300)})
    blob = store.blobs.put(tar)
    problems: list[BaseException] = []

    def work() -> None:
        try:
            store.import_layer(blob, diff_id_of(tar))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(list(store.layers.folders())) == 1
    assert scratches(store) == []


def test_two_engines_over_one_store(store: ImageStore) -> None:
    """A second process has its own locks: the first to rename wins, and both have the layer."""
    tar = tar_of({"a": b"1"})
    blob = store.blobs.put(tar)
    other = ImageStore(store.root)
    try:
        results = []
        threads = [
            threading.Thread(target=lambda each=each: results.append(each.import_layer(blob, diff_id_of(tar))))
            for each in (store, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 2
        assert results[0] == results[1]
    finally:
        other.close()


def test_what_a_dead_engine_left_is_swept_and_a_living_one_spared(store: ImageStore, tmp_path: Path) -> None:
    dead = store.root / "unpacking" / "0123456789abcdef"
    (dead / "half/usr").mkdir(parents=True)
    living = list((store.root / "unpacking").iterdir())
    other = ImageStore(store.root)
    other.close()
    assert not dead.exists()
    assert [path for path in living if path.exists()] == [path for path in living if path != dead]


def test_a_donated_folder_is_moved_and_packed_on_demand(store: ImageStore, upper: Path) -> None:
    inode = (upper / "etc/passwd").stat().st_ino
    layer = store.add_layer_from_dir(None, upper)
    assert not upper.exists()
    folder = store.layer_folder(layer.chain_id)
    assert (folder / "etc/passwd").stat().st_ino == inode
    assert layer.descriptor is None
    packed = store.layers.pack(layer.chain_id)
    with store.blobs.open(packed.digest) as blob:
        tar = gzip.decompress(blob.read())
    assert diff_id_of(tar) == layer.diff_id
    assert store.layers.pack(layer.chain_id) == packed
    found = store.layer(layer.chain_id)
    assert found is not None
    assert found.descriptor == packed


def test_a_copied_folder_stays_and_is_unpacked_on_demand(store: ImageStore, upper: Path) -> None:
    layer = store.add_layer_from_dir(None, upper, donate=False)
    assert (upper / "etc/passwd").exists()
    assert layer.descriptor is not None
    assert not store.layers.has(layer.chain_id)
    again = store.import_layer(layer.descriptor, layer.diff_id)
    assert (store.layer_folder(again.chain_id) / "etc/shadow").read_text() == "secret\n"


def test_the_same_content_is_the_same_layer(store: ImageStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
        os.utime(tmp_path / name / "file", (1, 1))
    first = store.add_layer_from_dir(None, tmp_path / "one")
    second = store.add_layer_from_dir(None, tmp_path / "two")
    assert first.chain_id == second.chain_id
    assert not (tmp_path / "two").exists()


def test_a_donated_folder_of_a_user_namespace_gets_its_owners_back(store: ImageStore, tmp_path: Path) -> None:
    folder = tmp_path / "upper"
    (folder / "dir").mkdir(parents=True)
    (folder / "dir/suid").write_bytes(b"x")
    os.symlink("suid", folder / "dir/link")
    for path in (folder, folder / "dir", folder / "dir/suid", folder / "dir/link"):
        os.chown(path, 100_005, 100_006, follow_symlinks=False)
    (folder / "dir/suid").chmod(0o4755)
    os.setxattr(folder / "dir", "user.overlay.opaque", b"y")
    layer = store.add_layer_from_dir(None, folder, id_shift=100_000)
    root = store.layer_folder(layer.chain_id)
    for path in ("", "dir", "dir/suid", "dir/link"):
        found = (root / path).lstat()
        assert (found.st_uid, found.st_gid) == (5, 6)
    assert stat.S_IMODE((root / "dir/suid").stat().st_mode) == 0o4755
    assert os.getxattr(root / "dir", "trusted.overlay.opaque") == b"y"
    assert store.layers.pack(layer.chain_id), "packing finds the same diff ID"


def test_a_layer_changed_on_disk_is_not_packed(store: ImageStore, upper: Path) -> None:
    from engine.errors import SystemFailure

    layer = store.add_layer_from_dir(None, upper)
    (store.layer_folder(layer.chain_id) / "etc/passwd").write_text("tampered")
    with pytest.raises(SystemFailure, match="was changed on disk"):
        store.layers.pack(layer.chain_id)
    assert list(store.blobs) == []


def test_a_root_that_hides_all_ends_the_chain(store: ImageStore, tmp_path: Path) -> None:
    below = store.add_layer_from_dir(None, _folder(tmp_path / "a", "old"))
    tar = tar_of({".wh..wh..opq": b"", "new": b"1"})
    above = store.import_layer(store.blobs.put(tar), diff_id_of(tar), below.chain_id)
    assert store.layers.lowerdirs(above.chain_id) == (store.layer_folder(above.chain_id),)


def _folder(path: Path, name: str) -> Path:
    path.mkdir()
    (path / name).write_text(name)
    return path


def test_tars_are_repacked(store: ImageStore) -> None:
    tar = tar_of({"a": b"1"})
    layer = store.add_layer_from_tar(None, io.BytesIO(tar))
    assert layer.diff_id == diff_id_of(tar)
    assert layer.descriptor is not None
    assert layer.descriptor.media_type == types.OCI_LAYER_GZIP
    with pytest.raises(InvalidInput, match="has the diff ID"):
        store.layers.tars.repack(io.BytesIO(tar), "sha256:" + "1" * 64)


def test_limits_hold_for_blobs_too(tmp_path: Path) -> None:
    root = tmp_path / "bounded"
    catalog = Catalog(tmp_path / "db")
    layers = LayerStore(root, BlobStore(root), catalog, Limits(bytes=100_000, entries=10))
    try:
        for tar, message in (
            (tar_of({"big": bytes(200_000)}), "more than 100000 bytes"),
            (tar_of({f"f{i}": b"" for i in range(20)}), "more than 10 entries"),
        ):
            blob = BlobStore(root).put(gzip.compress(tar))
            with pytest.raises(InvalidInput, match=message):
                layers.import_blob(blob, diff_id_of(tar), None)
        assert list(layers.folders()) == []
    finally:
        layers.close()
        catalog.close()


# -- layers that need those below them


def test_folders_without_an_entry_look_as_they_do_below(store: ImageStore, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    (folder / "srv/www").mkdir(parents=True)
    for path in ("srv", "srv/www"):
        os.chown(folder / path, 33, 34)
        (folder / path).chmod(0o2750)
        os.setxattr(folder / path, "user.note", b"kept")
        os.utime(folder / path, (1_000, 1_000))
    below = store.add_layer_from_dir(None, folder)
    tar = tar_of({"srv/www/index.html": b"new"})
    above = store.import_layer(store.blobs.put(tar), diff_id_of(tar), below.chain_id)
    for path in ("srv", "srv/www"):
        found = (store.layer_folder(above.chain_id) / path).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_mtime) == (33, 34, 0o2750, 1_000)
        assert os.getxattr(store.layer_folder(above.chain_id) / path, "user.note") == b"kept"


def test_a_hard_link_to_a_file_below_brings_it_up(store: ImageStore) -> None:
    lower = tar_of({"usr/bin/tool": b"#!/bin/sh"})
    below = store.import_layer(store.blobs.put(lower), diff_id_of(lower))
    upper = tar_of({}, bin="usr/bin/tool")
    above = store.import_layer(store.blobs.put(upper), diff_id_of(upper), below.chain_id)
    folder = store.layer_folder(above.chain_id)
    assert (folder / "bin").read_bytes() == b"#!/bin/sh"
    assert (folder / "bin").stat().st_ino == (folder / "usr/bin/tool").stat().st_ino
    assert (folder / "bin").stat().st_mtime == 1_600_000_000


@pytest.mark.parametrize("hide", [{".wh.tool": b""}, {".wh..wh..opq": b""}])
def test_a_hard_link_to_what_is_hidden_or_nowhere(store: ImageStore, hide: dict[str, bytes]) -> None:
    lower = tar_of({"tool": b"1"})
    chain = store.import_layer(store.blobs.put(lower), diff_id_of(lower)).chain_id
    middle = tar_of(hide)
    chain = store.import_layer(store.blobs.put(middle), diff_id_of(middle), chain).chain_id
    upper = tar_of({}, twin="tool")
    with pytest.raises(InvalidInput, match="hard link to a file that is nowhere: 'tool'"):
        store.import_layer(store.blobs.put(upper), diff_id_of(upper), chain)


def test_links_below_are_not_followed_for_hard_links(store: ImageStore, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    os.symlink("/etc", folder / "way")
    below = store.add_layer_from_dir(None, folder)
    upper = tar_of({}, stolen="way/passwd")
    with pytest.raises(InvalidInput, match="nowhere"):
        store.import_layer(store.blobs.put(upper), diff_id_of(upper), below.chain_id)


def test_trees_are_spread_over_the_disk_where_that_is_possible(tmp_path: Path) -> None:
    spread(tmp_path)
    spread(tmp_path)
    (tmp_path / "tree").mkdir()
    spread(tmp_path / "nowhere")
    listed = subprocess.run(["lsattr", "-d", str(tmp_path), str(tmp_path / "tree")], capture_output=True, text=True)
    if listed.returncode == 0:  # ext4 and its like
        parent, tree = (line.split()[0] for line in listed.stdout.splitlines())
        assert "T" in parent
        assert "T" not in tree, "what is in a tree stays together"
