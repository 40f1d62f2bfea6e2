"""`python -m tests.engine.registry.storagecrashes push|delete|collect FOLDER`: kills the registry itself, often.

What a server does to its files for a push, a deletion or a collection is done in a process that is killed at one
system call after another. After each time every blob is whole, every manifest that a tag names is there with all of
its parts, and the same, done again, succeeds. Prints how often it was killed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from engine.images.manifest import Manifest
from engine.registry.server.errors import RegistryError
from engine.registry.server.storage.collect import Collection, Rule
from engine.registry.server.storage.layout import digests_in
from engine.registry.server.storage.store import Storage
from tests.engine.killing import at_points
from tests.engine.registry.conftest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, digest_of

POINTS = 100


def send(storage: Storage, repository: str, data: bytes) -> dict[str, object]:
    """An upload in two chunks, as the handlers do it; gives size and digest."""
    upload = storage.uploads.begin(repository)
    for chunk in (data[: len(data) // 2], data[len(data) // 2 :]):
        upload.open()
        upload.append(chunk)
        upload.rest()
    upload.open()
    upload.verify(digest_of(data))
    with storage.lock:
        storage.blobs.adopt(upload, digest_of(data))
    storage.uploads.forget(upload)
    return {"digest": digest_of(data), "size": len(data)}


def push(storage: Storage, tag: str) -> str:
    """An image under a tag, and something that refers to it; gives its digest."""
    config = send(storage, "team/app", b'{"architecture": "amd64", "os": "linux"}')
    layer = send(storage, "team/app", f"layer of {tag}".encode() * 1000)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, **config},
        "layers": [{"mediaType": OCI_LAYER, **layer}],
    }
    data = json.dumps(manifest).encode()
    stored, _ = storage.manifests.put("team/app", tag, data, OCI_MANIFEST)
    subject = {"mediaType": OCI_MANIFEST, "digest": stored.digest, "size": len(data)}
    signature = json.dumps({**manifest, "subject": subject}).encode()
    storage.manifests.put("team/app", digest_of(signature), signature, OCI_MANIFEST)
    return stored.digest


def delete(storage: Storage) -> None:
    new = push(storage, "new")
    for referrer in storage.manifests.referrers("team/app", new):
        storage.manifests.delete("team/app", referrer.digest)
    storage.manifests.untag("team/app", "new")
    storage.manifests.delete("team/app", new)


def collect(storage: Storage) -> None:
    push(storage, "new")
    storage.holds.put("release", [str(storage.manifests.tagged("team/app", "kept"))])
    Collection(storage, Rule(keep=0, grace=-1)).run()


def verify(storage: Storage) -> None:
    """Everything that the registry would show, it has, byte for byte."""
    for digest in digests_in(storage.layout.blobs):
        assert digest_of(storage.layout.blob(digest).read_bytes()) == digest, f"half a blob: {digest}"
    for repository in storage.repositories():
        for tag in storage.manifests.tags(repository):
            digest = storage.manifests.tagged(repository, tag)
            assert digest, f"an empty tag: {tag}"
            whole(storage, repository, digest)
        for digest in storage.manifests.digests(repository):
            for referrer in storage.manifests.referrers(repository, digest):
                whole(storage, repository, referrer.digest)


def whole(storage: Storage, repository: str, digest: str) -> None:
    manifest = storage.manifests.read(storage.manifests.find(repository, digest))
    assert isinstance(manifest, Manifest), f"a manifest that is none: {digest}"
    for part in (manifest.config, *manifest.layers):
        assert storage.blobs.find(repository, part.digest).stat().st_size == part.size


def run(name: str, folder: Path) -> int:
    work: Callable[[Storage], object] = {
        "push": lambda storage: push(storage, "new"),
        "delete": delete,
        "collect": collect,
    }[name]
    storage = Storage(folder)
    kept = push(storage, "kept")
    storage.close()

    def once() -> None:
        storage = Storage(folder)
        work(storage)
        storage.close()

    def after() -> None:
        storage = Storage(folder)
        try:
            verify(storage)
            work(storage)
            verify(storage)
            assert storage.manifests.tagged("team/app", "kept") == kept
            whole(storage, "team/app", kept)
            if name == "push":
                storage.manifests.untag("team/app", "new")
            storage.holds.put("release", [kept])
            Collection(storage, Rule(grace=-1)).run()
            for upload in storage.uploads.idle(-1):
                storage.uploads.forget(upload)
            left = {*digests_in(storage.layout.blobs)}
            assert len(left) == 4, "an image, its config, its layer and its signature: nothing is forgotten"
            try:
                storage.manifests.find("team/app", "new")
            except RegistryError:
                pass
            else:
                raise AssertionError("what was deleted has come back")
        finally:
            storage.close()

    return at_points(POINTS, once, after)


if __name__ == "__main__":
    print(run(sys.argv[1], Path(sys.argv[2])))
