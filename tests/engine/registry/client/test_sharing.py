"""Blobs that are there already, at a neighbour, under way, or at a mirror."""

from __future__ import annotations

import asyncio
import os

import pytest

from engine.errors import InvalidInput, Unavailable
from engine.images.manifest import parse
from engine.images.reference import Reference
from engine.registry.client import ProgressEvent, RegistryClient, describe, list_tags, pull, push
from tests.engine.registry.client.conftest import PATIENCE, files_of, is_empty
from tests.engine.registry.client.faults import cut, status
from tests.patience import eventually
from tests.ports import free_port

BIG = {"data": os.urandom(3_000_000)}


# -- mounts


async def test_blobs_of_a_neighbour_are_mounted(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    image = make_image(here, BIG)
    await push(client, here, image, Reference.parse(f"{registry.host}/{repository}/one:1"))
    news: list[ProgressEvent] = []
    other = Reference.parse(f"{registry.host}/{repository}/two:1")
    await push(client, here, image, other, progress=news.append)
    assert f"Mounted from {repository}/one" in [event.status for event in news]
    assert not any(event.status == "Pushing" for event in news)
    assert files_of(there, await pull(client, other, there)) == BIG


async def test_what_was_pulled_is_mounted_too(registry, repository, new_store, make_image):
    here, there = new_store(), new_store()
    source = Reference.parse(f"{registry.host}/{repository}/base:1")
    async with RegistryClient(patience=PATIENCE) as builder:
        await push(builder, here, make_image(here, BIG), source)
    news: list[ProgressEvent] = []
    async with RegistryClient(patience=PATIENCE) as client:
        image = await pull(client, source, there)
        await push(client, there, image, Reference.parse(f"{registry.host}/{repository}/app:1"), progress=news.append)
    assert f"Mounted from {repository}/base" in [event.status for event in news]


async def test_a_mount_that_is_refused_becomes_an_upload(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    image = make_image(here, BIG)
    await push(client, here, image, Reference.parse(f"{faulty.host}/one:1"))
    layer = parse(here.manifest_of(image)[0]).layers[0]
    async with faulty.http.delete(f"{faulty.url}/v2/one/blobs/{layer.digest}") as answer:
        assert answer.status == 202
    other = Reference.parse(f"{faulty.host}/two:1")
    await push(client, here, image, other)
    assert files_of(there, await pull(client, other, there)) == BIG


# -- several at once


async def test_two_pulls_of_one_image_share_the_work(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG, {"small": b"1"})
    await push(client, here, image, reference)
    pulled = await asyncio.gather(*(pull(client, reference, there) for _ in range(4)))
    assert {each.id for each in pulled} == {image.id}
    for layer in parse(here.manifest_of(image)[0]).layers:
        assert faulty.faults.count("GET", layer.digest) == 1
    assert files_of(there, pulled[0]) == BIG | {"small": b"1"}


async def test_images_that_share_a_layer_pulled_at_once(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    references = [Reference.parse(f"{faulty.host}/app:{number}") for number in range(5)]
    for number, reference in enumerate(references):
        await push(client, here, make_image(here, BIG, {f"own{number}": b"1"}), reference)
    images = await asyncio.gather(*(pull(client, reference, there) for reference in references))
    for number, image in enumerate(images):
        assert files_of(there, image) == BIG | {f"own{number}": b"1"}


async def test_more_pulls_than_threads(faulty, client, new_store, make_image):
    """Unpacking waits for bytes that others write: it must never hold all the threads that write them."""
    here, there = new_store(), new_store()
    references = [Reference.parse(f"{faulty.host}/app:{number}") for number in range(12)]
    for number, reference in enumerate(references):
        layers = [{f"{number}-{layer}": os.urandom(300_000)} for layer in range(4)]
        await push(client, here, make_image(here, *layers), reference)
    async with asyncio.timeout(60):
        images = await asyncio.gather(*(pull(client, reference, there) for reference in references))
    assert [len(files_of(there, image)) for image in images] == [4] * 12


async def test_one_of_two_pulls_is_cancelled(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG)
    await push(client, here, image, reference)
    layer = parse(here.manifest_of(image)[0]).layers[0]
    faulty.faults.on("GET", layer.digest, cut(1_000_000, faulty.faults))
    first = asyncio.create_task(pull(client, reference, there))
    await eventually(lambda: faulty.faults.count("GET", layer.digest) == 1, "the pull of the layer", 20)
    second = asyncio.create_task(pull(client, reference, there))
    await eventually(lambda: faulty.faults.count("GET", "/manifests/") == 2, "the second pull", 20)
    first.cancel()
    assert files_of(there, await second) == BIG
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_two_pushes_of_one_image(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    image = make_image(here, BIG, {"small": b"1"})
    reference = Reference.parse(f"{registry.host}/{repository}:1")
    pushed = await asyncio.gather(*(push(client, here, image, reference) for _ in range(6)))
    assert len({each.digest for each in pushed}) == 1
    assert files_of(there, await pull(client, reference, there)) == BIG | {"small": b"1"}


# -- cancelled


async def test_a_cancelled_pull_leaves_no_half_image(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, {"small": b"1"}, BIG)
    await push(client, here, image, reference)
    layer = parse(here.manifest_of(image)[0]).layers[1]
    faulty.faults.on("GET", layer.digest, cut(1_500_000, faulty.faults))
    task = asyncio.create_task(pull(client, reference, there))
    arriving = there.root / "ingest" / f"{layer.digest.partition(':')[2]}.partial"
    await eventually(lambda: arriving.exists() and arriving.stat().st_size >= 1 << 20, "the first megabyte", 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert there.list(all=True) == []
    assert not there.blobs.has(layer.digest)
    assert list((there.root / "unpacking").glob("*/*")) == [], "nothing is half unpacked"
    assert there.catalog.leased() == set()
    assert files_of(there, await pull(client, reference, there)) == BIG | {"small": b"1"}
    assert faulty.faults.ranges(layer.digest)[-1].startswith("bytes="), "it went on where it was"


async def test_a_cancelled_push_leaves_no_image(faulty, client, store, make_image):
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(store, BIG)
    layer = parse(store.manifest_of(image)[0]).layers[0]
    faulty.faults.on("PUT", layer.digest, faulty.faults.hang())
    task = asyncio.create_task(push(client, store, image, reference))
    await eventually(lambda: faulty.faults.count("PUT", layer.digest) == 1, "the end of the upload", 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert faulty.faults.count("PUT", "/manifests/") == 0
    await push(client, store, image, reference)


async def test_a_push_that_is_cancelled_while_it_packs(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG)
    faulty.faults.on("PATCH", "/uploads/", faulty.faults.hang())
    task = asyncio.create_task(push(client, here, image, reference))
    await eventually(lambda: faulty.faults.count("PATCH", "/uploads/") == 1, "the upload", 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((here.root / "ingest").iterdir()) == []
    await push(client, here, image, reference)
    assert files_of(there, await pull(client, reference, there)) == BIG


async def test_one_failing_layer_ends_the_others(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG, {"small": b"1"})
    await push(client, here, image, reference)
    big, small = parse(here.manifest_of(image)[0]).layers
    faulty.faults.on("GET", big.digest, cut(1000, faulty.faults))
    faulty.faults.on("GET", small.digest, *[status(503)] * PATIENCE.attempts)
    async with asyncio.timeout(20):  # less than the other one's stall
        with pytest.raises(Unavailable):
            await pull(client, reference, there)
    assert is_empty(there)


# -- mirrors


async def test_a_mirror_stands_before_docker_hub(ours, new_store, make_image):
    here, there = new_store(), new_store()
    async with RegistryClient(patience=PATIENCE) as client:
        image = make_image(here, BIG)
        await push(client, here, image, Reference.parse(f"{ours.host}/library/app:1"))
    down = f"http://127.0.0.1:{free_port()}"
    news: list[ProgressEvent] = []
    async with RegistryClient(mirrors=(down, ours.url), patience=PATIENCE) as client:
        pulled = await pull(client, Reference.parse("app:1"), there, progress=news.append)
        assert await list_tags(client, Reference.parse("app")) == ["1"]
        assert (await describe(client, Reference.parse("app:1"))).platforms
    assert pulled.tags == ("app:1",)
    assert files_of(there, pulled) == BIG
    assert news[0].status.startswith(f"Mirror {down.removeprefix('http://')} can't help")


@pytest.mark.parametrize("code", [401, 403])
async def test_a_mirror_that_refuses_is_passed_over(ours, faulty, new_store, make_image, code):
    here, there = new_store(), new_store()
    async with RegistryClient(patience=PATIENCE) as client:
        await push(client, here, make_image(here, {"f": b"x"}), Reference.parse(f"{ours.host}/library/app:2"))
    faulty.faults.on("GET", "/v2/library/app/", *[status(code)] * 9)
    async with RegistryClient(mirrors=(faulty.url, ours.url), patience=PATIENCE) as client:
        assert "2" in await list_tags(client, Reference.parse("app"))
        assert (await describe(client, Reference.parse("app:2"))).platforms
        assert (await pull(client, Reference.parse("app:2"), there)).tags == ("app:2",)


async def test_mirrors_are_spelled_right(store):
    for url in ("ours", "ftp://ours", "http://user:secret@ours", "http://mirror.example.com"):
        async with RegistryClient(mirrors=(url,), patience=PATIENCE) as client:
            with pytest.raises(InvalidInput, match="mirror"):
                await pull(client, Reference.parse("app:1"), store)
