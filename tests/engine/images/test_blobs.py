from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from engine.errors import Conflict, InvalidInput, NotFound
from engine.images import digest as digests
from engine.images.blobs import BlobStore, BlobWriter

DATA = b"some bytes" * 1000
DIGEST = digests.sha256(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def write(writer: BlobWriter, data: bytes) -> str:
    with writer:
        writer.write(data)
        return writer.commit()


def leftovers(blobs: BlobStore) -> list[str]:
    return sorted(os.listdir(blobs.root / "ingest"))


def test_put_and_read(blobs: BlobStore) -> None:
    assert blobs.put(DATA) == DIGEST
    assert blobs.put(DATA) == DIGEST
    assert blobs.has(DIGEST)
    assert blobs.size(DIGEST) == len(DATA)
    assert blobs.read(DIGEST, len(DATA)) == DATA
    assert list(blobs) == [DIGEST]
    assert leftovers(blobs) == []
    assert blobs.delete(DIGEST) == len(DATA)
    assert blobs.delete(DIGEST) == 0
    with pytest.raises(NotFound):
        blobs.open(DIGEST)


def test_sha512(blobs: BlobStore) -> None:
    import hashlib

    digest = "sha512:" + hashlib.sha512(DATA).hexdigest()
    with blobs.writer(digest) as writer:
        writer.write(DATA)
        assert writer.commit() == digest
    assert blobs.has(digest)


@pytest.mark.parametrize(
    ("expected", "size"), [("sha256:" + "0" * 64, None), (None, len(DATA) + 1), (DIGEST, len(DATA) - 1)]
)
def test_wrong_bytes_are_never_visible(blobs: BlobStore, expected: str | None, size: int | None) -> None:
    with pytest.raises(InvalidInput):
        write(blobs.writer(expected, size), DATA)
    assert list(blobs) == []
    assert leftovers(blobs) == []


def test_uncommitted_is_dropped(blobs: BlobStore) -> None:
    with blobs.writer() as writer:
        writer.write(DATA)
    assert list(blobs) == []
    assert leftovers(blobs) == []


def test_resume(blobs: BlobStore) -> None:
    with blobs.writer(DIGEST, len(DATA), resume=True) as writer:
        writer.write(DATA[:4000])
        with pytest.raises(Conflict):
            blobs.writer(DIGEST, resume=True)
    with blobs.writer(DIGEST, len(DATA), resume=True) as writer:
        assert writer.offset == 4000
        writer.write(DATA[4000:])
        assert writer.commit() == DIGEST
    assert leftovers(blobs) == []


def test_resumed_wrong_bytes_start_over(blobs: BlobStore) -> None:
    with blobs.writer(DIGEST, len(DATA), resume=True) as writer:
        writer.write(b"x" * 4000)
    with pytest.raises(InvalidInput):
        write(blobs.writer(DIGEST, len(DATA), resume=True), DATA[4000:])
    with blobs.writer(DIGEST, len(DATA), resume=True) as writer:
        assert writer.offset == 0


def test_many_writers_of_one_blob(blobs: BlobStore) -> None:
    threads = [threading.Thread(target=blobs.put, args=(DATA,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(blobs) == [DIGEST]
    assert leftovers(blobs) == []


def test_clean_spares_the_living_and_the_young(blobs: BlobStore) -> None:
    (blobs.root / "ingest/dead").write_bytes(b"123")
    with blobs.writer(DIGEST, resume=True) as writer:
        writer.write(b"12345")
    with blobs.writer() as living:
        living.write(b"1")
        assert blobs.clean(0) == 3
        assert len(leftovers(blobs)) == 2
    assert blobs.clean(2**40) == 5
    assert leftovers(blobs) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "md5:" + "a" * 32, "sha256:" + "A" * 64])
def test_paths_are_made_of_digests_only(blobs: BlobStore, digest: str) -> None:
    with pytest.raises(InvalidInput):
        blobs.path(digest)
