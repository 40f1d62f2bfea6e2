"""Registries that fail, stall, limit and break off: tried again, resumed, and bounded."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from engine.errors import InvalidInput, Unavailable
from engine.images.manifest import parse
from engine.images.reference import Reference
from engine.registry.client import Patience, ProgressEvent, RegistryClient, pull, push
from tests.engine.registry.client.conftest import PATIENCE, files_of, is_empty
from tests.engine.registry.client.faults import cut, status, take

BIG = {"data": os.urandom(3_000_000)}


@pytest.fixture
async def there(faulty, client, new_store, make_image):
    """The reference of an image at the faulty registry, and its only layer."""
    store = new_store()
    image = make_image(store, BIG)
    reference = Reference.parse(f"{faulty.host}/app:1")
    await push(client, store, image, reference)
    faulty.faults.seen.clear()
    return reference, parse(store.manifest_of(image)[0]).layers[0]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(faulty, there, client, store, code):
    reference, layer = there
    faulty.faults.on("GET", "/manifests/", status(code), status(code))
    faulty.faults.on("GET", layer.digest, status(code))
    image = await pull(client, reference, store)
    assert files_of(store, image) == BIG
    assert faulty.faults.count("GET", "/manifests/") == 3
    assert faulty.faults.count("GET", layer.digest) == 2


async def test_what_will_not_pass_is_not_tried_again(faulty, there, client, store):
    reference, _ = there
    body = b'{"errors": [{"code": "UNSUPPORTED", "message": "not\\nhere"}]}'
    faulty.faults.on("GET", "/manifests/", status(405, body))
    with pytest.raises(InvalidInput, match="unsupported: not here \\(HTTP 405\\)"):
        await pull(client, reference, store)
    assert faulty.faults.count("GET", "/manifests/") == 1


async def test_patience_ends(faulty, there, client, store):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, *[status(500, b"<html>oops</html>")] * 50)
    with pytest.raises(Unavailable, match="HTTP 500") as caught:
        await pull(client, reference, store)
    assert faulty.faults.count("GET", layer.digest) == PATIENCE.attempts
    assert "\n" not in str(caught.value)
    assert is_empty(store)


async def test_retry_after_is_heeded(faulty, there, store):
    reference, _ = there
    faulty.faults.on("GET", "/manifests/", status(429, Retry_After="1"))
    async with RegistryClient(patience=Patience(first=0.001, longest=2)) as client:
        began = time.monotonic()
        told: list[ProgressEvent] = []
        await pull(client, reference, store, progress=told.append)
        assert time.monotonic() - began >= 1
    (said,) = [event.status for event in told if event.status.startswith("Retrying")]
    assert said.startswith("Retrying in 1 s: manifest of ")
    assert "the registry limits its rate, it asks for 1 s of patience" in said


async def test_who_asks_for_too_much_patience_is_told_of(faulty, there, client, store):
    reference, _ = there
    faulty.faults.on("GET", "/manifests/", *[status(429, Retry_After="3600")] * 9)
    with pytest.raises(Unavailable, match="limits its rate, it asks for 3600 s of patience; log in or try again"):
        await pull(client, reference, store)
    assert faulty.faults.count("GET", "/manifests/") == 1


async def test_a_broken_download_goes_on_where_it_broke(faulty, there, client, store):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, cut(1_100_000), cut(700_000))
    image = await pull(client, reference, store)
    assert files_of(store, image) == BIG
    ranges = faulty.faults.ranges(layer.digest)
    assert ranges == ["", "bytes=1100000-", "bytes=1800000-"]


async def test_progress_renews_patience(faulty, there, client, store):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, *[cut(200_000)] * (2 * PATIENCE.attempts))
    image = await pull(client, reference, store)
    assert files_of(store, image) == BIG


async def test_a_download_that_brings_nothing_new_ends(faulty, there, client, store):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, cut(500_000), *[cut(0)] * 50)
    with pytest.raises(Unavailable):
        await pull(client, reference, store)
    assert faulty.faults.count("GET", layer.digest) == 1 + PATIENCE.attempts
    assert is_empty(store)


async def test_the_next_pull_goes_on_where_the_last_one_gave_up(faulty, there, client, store):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, cut(2_000_000), *[status(503)] * PATIENCE.attempts)
    with pytest.raises(Unavailable):
        await pull(client, reference, store)
    image = await pull(client, reference, store)
    assert faulty.faults.ranges(layer.digest)[-1] == "bytes=2000000-"
    assert files_of(store, image) == BIG


@pytest.mark.parametrize("answer", [status(416), status(200, b"")])
async def test_a_registry_that_can_not_resume(faulty, there, client, store, answer):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, cut(2_000_000), answer)
    image = await pull(client, reference, store)
    assert files_of(store, image) == BIG
    assert faulty.faults.ranges(layer.digest) == ["", "bytes=2000000-", ""]


async def test_a_stalled_download(faulty, there, store):
    reference, layer = there
    faulty.faults.on("GET", layer.digest, cut(1_000_000, faulty.faults), faulty.faults.hang())
    async with RegistryClient(patience=Patience(stall=0.3, attempts=3, first=0.01)) as client:
        image = await pull(client, reference, store)
    assert files_of(store, image) == BIG
    assert faulty.faults.ranges(layer.digest) == ["", "bytes=1000000-", "bytes=1000000-"]


async def test_layers_that_arrived_stay(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG, {"small": b"1"})
    await push(client, here, image, reference)
    big, small = parse(here.manifest_of(image)[0]).layers
    faulty.faults.on("GET", small.digest, *[status(503)] * PATIENCE.attempts)
    with pytest.raises(Unavailable):
        await pull(client, reference, there)
    faulty.faults.seen.clear()
    await pull(client, reference, there)
    assert faulty.faults.count("GET", big.digest) in (0, 1)
    assert "" not in faulty.faults.ranges(big.digest)


@pytest.mark.parametrize("taken", [0, 1, 1_000_000])
async def test_a_broken_upload_goes_on_where_the_registry_is(faulty, client, new_store, make_image, taken):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG)
    layer = parse(here.manifest_of(image)[0]).layers[0]
    faulty.faults.on("PUT", layer.digest, take(taken))
    await push(client, here, image, reference)
    sent = [
        seen.headers.get("Content-Range")
        for seen in faulty.faults.seen
        if seen.method == "PUT" and layer.digest in seen.query
    ]
    if taken > 1:
        assert sent[-1] == f"{taken}-{layer.size - 1}"
    assert files_of(other, await pull(client, reference, other)) == BIG


async def test_a_layer_is_sent_while_it_is_packed(faulty, client, new_store, make_image):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    await push(client, here, make_image(here, BIG), reference)
    assert faulty.faults.count("PATCH", "/uploads/") == 1
    assert faulty.faults.count("HEAD", "/blobs/") == 1, "the config's: a layer without bytes has no digest to ask for"
    assert files_of(other, await pull(client, reference, other)) == BIG


@pytest.mark.parametrize("fault", [take(0), take(1_000_000), status(500), status(404), status(202)])
async def test_a_stream_that_fails_is_sent_again_as_a_blob(faulty, client, new_store, make_image, fault):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    faulty.faults.on("PATCH", "/uploads/", fault)
    await push(client, here, make_image(here, BIG), reference)
    assert files_of(other, await pull(client, reference, other)) == BIG
    assert faulty.faults.count("PATCH", "/uploads/") == 1


@pytest.mark.parametrize("faults", [[status(500)], [status(404)], [status(500)] * PATIENCE.attempts])
async def test_a_stream_that_can_not_be_completed(faulty, client, new_store, make_image, faults):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    faulty.faults.on("PUT", "/uploads/", *faults)
    await push(client, here, make_image(here, BIG), reference)
    assert files_of(other, await pull(client, reference, other)) == BIG


async def test_a_registry_that_takes_nothing_of_a_stream(faulty, new_store, make_image):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    faulty.faults.on("PATCH", "/uploads/", faulty.faults.hang())
    async with RegistryClient(patience=Patience(stall=0.3, attempts=2, first=0.01)) as client:
        await push(client, here, make_image(here, BIG), reference)
        assert files_of(other, await pull(client, reference, other)) == BIG


async def test_an_upload_that_the_registry_forgot(faulty, client, new_store, make_image):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG)
    faulty.faults.on("PUT", parse(here.manifest_of(image)[0]).layers[0].digest, take(1_000_000))
    faulty.faults.on("GET", "/uploads/", status(404))
    await push(client, here, image, reference)
    assert files_of(other, await pull(client, reference, other)) == BIG


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_every_step_of_a_push_is_tried_again(faulty, client, new_store, make_image, code):
    here, other = new_store(), new_store()
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(here, BIG)
    for method, fragment in (
        ("HEAD", "/manifests/"),
        ("HEAD", "/blobs/"),
        ("POST", "/uploads/"),
        ("PUT", "/uploads/"),
        ("PUT", "/manifests/"),
    ):
        faulty.faults.on(method, fragment, status(code))
    await push(client, here, image, reference)
    assert files_of(other, await pull(client, reference, other)) == BIG


async def test_a_push_gives_up_too(faulty, client, store, make_image):
    reference = Reference.parse(f"{faulty.host}/app:1")
    faulty.faults.on("PUT", "/uploads/", *[status(503)] * 100)
    with pytest.raises(Unavailable, match="HTTP 503"):
        await push(client, store, make_image(store, {"small": b"1"}), reference)
    assert faulty.faults.count("PUT", "/uploads/") <= 2 * PATIENCE.attempts * 2, "two blobs"
    assert faulty.faults.count("PUT", "/manifests/") == 0


async def test_a_registry_that_takes_no_bytes(faulty, store, make_image):
    """It answers, but reads nothing of the upload."""
    reference = Reference.parse(f"{faulty.host}/app:1")
    image = make_image(store, {"data": os.urandom(30_000_000)})
    layer = parse(store.manifest_of(image)[0]).layers[0]
    faulty.faults.on("PUT", "/uploads/", *[faulty.faults.hang()] * 100)
    async with RegistryClient(patience=Patience(stall=0.2, attempts=2, first=0.01)) as client:
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable):
                await push(client, store, image, reference)
    assert layer.size > 10 << 20, "more than the sockets' buffers hold"
