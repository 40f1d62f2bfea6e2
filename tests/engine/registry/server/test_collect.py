"""Collection: what is kept, what goes, and that it can run beside everything else."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFound
from engine.images.config import ImageConfig
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import RegistryClient, pull, push
from engine.registry.server import make_app, start
from engine.registry.server.app import Upkeep
from engine.registry.server.state import STATE
from engine.registry.server.storage.collect import Collected, Collection, Rule
from engine.registry.server.storage.store import Storage
from tests.engine.registry.conftest import OCI_INDEX, OCI_MANIFEST, Wire

OLD = Rule(grace=-1)
"""Nothing is young to this one."""


def storage_of(ours: Any) -> Storage:
    storage: Storage = ours.app[STATE].storage
    return storage


@pytest.fixture
async def ours(tmp_path, http):
    app = make_app(tmp_path / "registry")
    runner, port = await start(app, "127.0.0.1", 0)
    wire = Wire(f"http://127.0.0.1:{port}", http)
    wire.app = app  # type: ignore[attr-defined]
    yield wire
    await runner.cleanup()


def collect(ours: Any, rule: Rule = OLD, **more: bool) -> Collected:
    return Collection(storage_of(ours), rule, **more).run()


def age(ours: Any, repository: str, **tags: float) -> None:
    """Makes tags as old as so many seconds."""
    for tag, seconds in tags.items():
        path = storage_of(ours).layout.tags(repository) / tag
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def blobs(ours: Any) -> int:
    return storage_of(ours).blobs.totals()[0]


async def test_what_a_tag_names_stays(ours):
    await ours.put_image("app", "1")
    assert collect(ours) == Collected()
    assert blobs(ours) == 3


async def test_what_nothing_names_goes_with_its_bytes(ours):
    first = await ours.put_image("app", "latest", b"first" * 1000)
    second = await ours.put_image("app", "latest", b"second" * 1000)
    done = collect(ours)
    assert done.manifests == [f"app@{first}"]
    assert done.blobs == 3, "a manifest, a config, a layer"
    assert done.bytes > 5000
    assert list(storage_of(ours).manifests.digests("app")) == [second]
    async with ours.http.get(f"{ours.url}/v2/app/manifests/latest") as answer:
        assert answer.status == 200


async def test_the_newest_tags_of_each_repository_stay(ours):
    for repository in ("one", "two/deep"):
        for number in range(5):
            await ours.put_image(repository, f"v{number}", f"{repository} {number}".encode())
        age(ours, repository, v0=500, v1=400, v2=300, v3=200, v4=100)
    told = collect(ours, Rule(keep=2, grace=-1), dry_run=True)
    assert told.tags == [f"{name}:v{number}" for name in ("one", "two/deep") for number in range(3)]
    assert blobs(ours) == 30, "a dry run changes nothing"
    done = collect(ours, Rule(keep=2, grace=-1))
    assert (done.tags, done.manifests) == (told.tags, told.manifests)
    assert storage_of(ours).manifests.tags("one") == ["v3", "v4"]
    assert blobs(ours) == 12


async def test_young_tags_stay_whatever_their_number(ours):
    for number in range(3):
        await ours.put_image("app", f"v{number}", str(number).encode())
    age(ours, "app", v0=10_000, v1=100, v2=50)
    assert collect(ours, Rule(keep=1, age=3600, grace=-1)).tags == ["app:v0"]


async def test_what_is_held_stays_with_its_tags(ours):
    digests = [await ours.put_image("app", f"v{number}", str(number).encode()) for number in range(4)]
    age(ours, "app", v0=400, v1=300, v2=200, v3=100)
    untagged = await ours.put_image("app", None, b"untagged")
    for holder, held in (("releases", [digests[0]]), ("runs", [untagged, "sha256:" + "0" * 64])):
        async with ours.http.put(f"{ours.url}/api/v1/holds/{holder}", json=held) as answer:
            assert answer.status == 200
    assert collect(ours, Rule(keep=1, grace=-1)).tags == ["app:v1", "app:v2"]
    assert set(storage_of(ours).manifests.digests("app")) == {digests[0], digests[3], untagged}
    async with ours.http.delete(f"{ours.url}/v2/app/manifests/{untagged}") as answer:
        assert answer.status == 403
        assert "held by runs" in await answer.text()
    async with ours.http.put(f"{ours.url}/api/v1/holds/runs", json=[]) as answer:
        assert answer.status == 200
    assert collect(ours).manifests == [f"app@{untagged}"]
    async with ours.http.get(f"{ours.url}/api/v1/holds") as answer:
        assert await answer.json() == {"releases": [digests[0]]}


async def test_an_index_keeps_its_images_and_a_subject_its_referrers(ours):
    inner = [await ours.put_image("app", None, f"platform {number}".encode()) for number in range(2)]
    index = await ours.put_manifest(
        "app",
        "multi",
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": 1} for digest in inner],
        },
    )
    subject = {"mediaType": OCI_INDEX, "digest": index, "size": 1}
    signature = await ours.put_image("app", None, b"signature", subject=subject)
    of_signature = await ours.put_image(
        "app", None, b"of it", subject={"mediaType": OCI_MANIFEST, "digest": signature, "size": 1}
    )
    lost = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "1" * 64, "size": 1}
    orphan = await ours.put_image("app", None, b"orphan", subject=lost)
    assert collect(ours).manifests == [f"app@{orphan}"]
    assert set(storage_of(ours).manifests.digests("app")) == {*inner, index, signature, of_signature}
    async with ours.http.delete(f"{ours.url}/v2/app/manifests/multi") as answer:
        assert answer.status == 202
    assert len(collect(ours).manifests) == 5
    assert storage_of(ours).repositories() == []
    assert not (storage_of(ours).layout.repositories / "app").exists(), "not even an empty folder"
    assert blobs(ours) == 0


async def test_blobs_that_repositories_share(ours):
    await ours.put_image("one", "1", b"shared")
    await ours.put_image("two", "1", b"shared")
    async with ours.http.delete(f"{ours.url}/v2/one/manifests/1") as answer:
        assert answer.status == 202
    assert collect(ours).blobs == 0
    async with ours.http.get(f"{ours.url}/v2/two/manifests/1") as answer:
        assert answer.status == 200


async def test_what_is_young_stays(ours):
    """A push under way: a blob that is there, one that was only asked for, an upload."""
    digest = await ours.put_blob("app", b"uploaded just now")
    asked = await ours.put_blob("other", b"asked for just now")
    storage = storage_of(ours)
    for path in (storage.layout.layer("other", asked), storage.layout.blob(asked)):
        os.utime(path, (0, 0))
    async with ours.http.head(f"{ours.url}/v2/other/blobs/{asked}") as answer:
        assert answer.status == 200
    async with ours.http.post(f"{ours.url}/v2/app/blobs/uploads/") as answer:
        assert answer.status == 202
    assert collect(ours, Rule()) == Collected()
    assert storage.blobs.has("app", digest)
    assert storage.blobs.has("other", asked)
    assert len(os.listdir(storage.layout.uploads)) == 1
    done = collect(ours)
    assert done.blobs == 2
    assert len(os.listdir(storage.layout.uploads)) == 1, "uploads have a day at least"
    for path in storage.layout.uploads.rglob("*"):
        os.utime(path, (0, 0))
    collect(ours)
    assert os.listdir(storage.layout.uploads) == []


async def test_what_somebody_fetched_lately_stays(ours):
    digest = await ours.put_image("app", "latest", b"first")
    os.utime(storage_of(ours).layout.manifest("app", digest), (0, 0))
    await ours.put_image("app", "latest", b"second")
    assert collect(ours, Rule()) == Collected(), "who resolved the tag a moment ago may still come for its layers"
    os.utime(storage_of(ours).layout.manifest("app", digest), (0, 0))
    async with ours.http.get(f"{ours.url}/v2/app/manifests/{digest}") as answer:
        assert answer.status == 200
    assert collect(ours, Rule()) == Collected()
    os.utime(storage_of(ours).layout.manifest("app", digest), (0, 0))
    assert collect(ours, Rule()).manifests == [f"app@{digest}"]


async def test_remains_of_a_crash_go(ours):
    layout = storage_of(ours).layout
    await ours.put_image("app", "1")
    remains = [layout.blobs / "sha256/.0.x", layout.tags("app") / ".1.y", layout.holds / ".z"]
    for path in remains:
        path.write_text("half")
    collect(ours)
    assert all(path.exists() for path in remains), "somebody may be writing them"
    for path in remains:
        os.utime(path, (0, 0))
    collect(ours)
    assert not any(path.exists() for path in remains)


async def test_over_http(ours):
    digest = await ours.put_image("app", None)
    async with ours.http.post(f"{ours.url}/api/v1/collect", json={"dry_run": True, "grace": 0}) as answer:
        assert (await answer.json())["manifests"] == [f"app@{digest}"]
    async with ours.http.post(f"{ours.url}/api/v1/collect", json={"grace": 0}) as answer:
        assert (await answer.json())["blobs"] == 3
    async with ours.http.get(f"{ours.url}/metrics") as answer:
        assert "shipway_registry_collected_bytes_total 0.0" not in await answer.text()
    for bad in ({"keep": -1}, {"keep": "x"}, {"unknown": 1}, {"grace": -5}, []):
        async with ours.http.post(f"{ours.url}/api/v1/collect", json=bad) as answer:
            assert answer.status == 400
    for bad in ({"a": 1}, ["latest"], ["sha256:12"]):
        async with ours.http.put(f"{ours.url}/api/v1/holds/x", json=bad) as answer:
            assert answer.status == 400
    async with ours.http.put(f"{ours.url}/api/v1/holds/x", data=b'["\xff"]') as answer:
        assert answer.status == 400
    async with ours.http.put(f"{ours.url}/api/v1/holds/.x", json=[]) as answer:
        assert answer.status == 400


async def test_by_itself(tmp_path, http):
    runner, port = await start(make_app(tmp_path / "r", upkeep=Upkeep(0.05, Rule(grace=-1))), "127.0.0.1", 0)
    ours = Wire(f"http://127.0.0.1:{port}", http)
    try:
        await ours.put_blob("app", b"loose")
        async with asyncio.timeout(10):
            while any((tmp_path / "r/blobs/sha256").iterdir()):  # noqa: ASYNC110  (files wake nobody)
                await asyncio.sleep(0.02)
    finally:
        await runner.cleanup()


async def test_beside_pushes_and_pulls(ours, tmp_path):
    """Collection without pause and with little grace, while images come, are pulled, and go."""
    stop = asyncio.Event()
    rounds = 0

    async def sweep() -> None:
        nonlocal rounds
        while not stop.is_set():
            await asyncio.to_thread(collect, ours, Rule(keep=1, grace=5))
            rounds += 1

    async def work(number: int) -> None:
        store = ImageStore(tmp_path / f"store{number}")
        async with RegistryClient() as client:
            for turn in range(6):
                folder = tmp_path / f"layer{number}-{turn}"
                folder.mkdir()
                (folder / "file").write_bytes(os.urandom(50_000))
                layer = store.add_layer_from_dir(None, folder)
                image = store.create_image(ImageConfig(architecture="amd64"), [layer], None)
                reference = Reference.parse(f"{ours.host}/team/app{number}:v{turn}")
                await push(client, store, image, reference)
                fresh = ImageStore(tmp_path / f"fresh{number}-{turn}")
                assert (await pull(client, reference, fresh)).id == image.id
                fresh.close()
        store.close()

    sweeping = asyncio.create_task(sweep())
    await asyncio.gather(*(work(number) for number in range(3)))
    stop.set()
    await sweeping
    assert rounds > 3
    collect(ours, Rule(keep=1, grace=-1))
    assert blobs(ours) == 9
    async with RegistryClient() as client:
        store = ImageStore(tmp_path / "last")
        for number in range(3):
            await pull(client, Reference.parse(f"{ours.host}/team/app{number}:v5"), store)
            with pytest.raises(NotFound):
                await pull(client, Reference.parse(f"{ours.host}/team/app{number}:v4"), store)
        store.close()


def test_nothing_to_collect(tmp_path: Path):
    storage = Storage(tmp_path)
    assert Collection(storage, Rule(keep=0, grace=-1)).run() == Collected()
    storage.close()
