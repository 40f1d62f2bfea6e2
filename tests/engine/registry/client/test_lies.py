"""Registries that send what they did not promise: refused in one line, and nothing of it is ever used."""

from __future__ import annotations

import json
import os

import pytest

from engine.errors import EngineError, InvalidInput, Unavailable
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.images.unpack import Limits
from engine.registry.client import pull
from tests.engine.registry.client.conftest import files_of, is_empty
from tests.engine.registry.client.faults import body, cut, status
from tests.engine.registry.client.handmade import Handmade, config_of, tar_of
from tests.engine.registry.conftest import OCI_MANIFEST, digest_of

FILES = {"data": os.urandom(400_000)}


@pytest.fixture
async def there(faulty):
    """A right image at the faulty registry: (reference, its layer's digest)."""
    described = await Handmade(faulty, "app").image(FILES, "1")
    async with faulty.http.get(f"{faulty.url}/v2/app/manifests/{described['digest']}") as answer:
        manifest = json.loads(await answer.read())
    return Reference.parse(f"{faulty.host}/app:1"), manifest["layers"][0]["digest"], described["digest"]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (flipped, InvalidInput),
        (lambda data: data + b"more", InvalidInput),
        (lambda data: data[:-1], Unavailable),
        (lambda data: b"", Unavailable),
    ],
)
async def test_other_bytes_than_the_digest_says(faulty, there, client, store, change, kind):
    reference, layer, _ = there
    faulty.faults.on("GET", layer, *[body(change)] * 20)
    with pytest.raises(kind) as caught:
        await pull(client, reference, store)
    assert "\n" not in str(caught.value)
    assert layer.partition(":")[2][:12] in str(caught.value)
    assert is_empty(store)
    assert not store.blobs.has(layer)
    faulty.faults.rules.clear()
    assert files_of(store, await pull(client, reference, store)) == FILES


async def test_what_an_earlier_pull_left_may_be_what_was_wrong(faulty, there, client, store):
    reference, layer, _ = there
    faulty.faults.on("GET", layer, body(lambda data: b"\0" * (len(data) // 2)), *[status(503)] * 9)
    with pytest.raises(Unavailable):
        await pull(client, reference, store)
    faulty.faults.rules.clear()
    assert files_of(store, await pull(client, reference, store)) == FILES
    assert faulty.faults.ranges(layer)[-1] == "", "the bad half was thrown away"


async def test_a_resumed_half_that_is_wrong(faulty, there, client, store):
    """The first half is right, what the registry sends as the second is not."""
    reference, layer, _ = there

    def other_half(data: bytes) -> bytes:
        return b"\0" * (len(data) - 100_000)

    async def as_partial(request, handler):
        answer = await body(other_half)(request, handler)
        answer.set_status(206)
        answer.headers["Content-Range"] = "bytes 100000-/*"
        return answer

    faulty.faults.on("GET", layer, cut(100_000), as_partial)
    with pytest.raises(InvalidInput, match="hash to"):
        await pull(client, reference, store)
    assert is_empty(store)
    assert files_of(store, await pull(client, reference, store)) == FILES


async def test_a_diff_id_that_the_layer_has_not(ours, client, store):
    await Handmade(ours, "app").image(FILES, "1", diff_id="sha256:" + "1" * 64)
    with pytest.raises(InvalidInput, match=r"unpacks to sha256:[0-9a-f]{64} instead of sha256:1111"):
        await pull(client, Reference.parse(f"{ours.host}/app:1"), store)
    assert is_empty(store)


async def test_a_layer_that_is_no_tar(ours, client, store):
    made = Handmade(ours, "app")
    junk = b"\x1f\x8b" + os.urandom(2000)
    layer = await made.descriptor(junk, "application/vnd.oci.image.layer.v1.tar+gzip")
    config = await made.descriptor(config_of(digest_of(junk)), "application/vnd.oci.image.config.v1+json")
    await made.manifest({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}, "1")
    with pytest.raises(InvalidInput, match="damaged gzip"):
        await pull(client, Reference.parse(f"{ours.host}/app:1"), store)
    assert is_empty(store)


async def test_a_layer_that_leads_out(ours, client, store):
    await Handmade(ours, "app").image({"../../escaped": b"x"}, "1")
    with pytest.raises(InvalidInput, match="outside of its root"):
        await pull(client, Reference.parse(f"{ours.host}/app:1"), store)
    assert is_empty(store)
    assert not list(store.root.parent.rglob("escaped"))


async def test_a_layer_that_is_a_bomb(ours, client, tmp_path):
    """One byte of it becomes a thousand. The limit counts from a gigabyte on; here from less, for the disk's sake."""
    await Handmade(ours, "app").image({"zeros": bytes(64 << 20)}, "1")
    store = ImageStore(tmp_path / "bounded", limits=Limits(ratio_floor=8 << 20))
    try:
        with pytest.raises(InvalidInput, match="grows more than 250 times: refused as a bomb") as caught:
            await pull(client, Reference.parse(f"{ours.host}/app:1"), store)
        assert "\n" not in str(caught.value)
        assert is_empty(store)
        assert not list(store.root.glob("unpacking/*/*"))
    finally:
        store.close()


@pytest.mark.parametrize("announced", [True, False])
async def test_a_manifest_with_another_digest(faulty, there, client, store, announced):
    reference, _, digest = there
    other = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
    headers = {"Docker_Content_Digest": digest} if announced else {}
    faulty.faults.on("GET", "/manifests/", status(200, other, Content_Type=OCI_MANIFEST, **headers))
    wanted = reference if announced else reference.with_digest(digest)
    with pytest.raises(InvalidInput, match=f"hash to {digest_of(other)} instead of {digest}"):
        await pull(client, wanted, store)
    assert is_empty(store)


async def test_a_manifest_without_end(faulty, there, client, store):
    reference, _, _ = there
    sent = 0

    async def endless(request, handler):
        nonlocal sent
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" " * (1 << 20))
            sent += 1 << 20
        return response

    faulty.faults.on("GET", "/manifests/", endless)
    with pytest.raises(InvalidInput, match="the most allowed"):
        await pull(client, reference, store)
    assert sent < 50 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"null",
        b'{"schemaVersion": 2, "mediaType": "text/html"}',
        b'{"schemaVersion": 2, "config": 7, "layers": "x"}',
        json.dumps(
            {"schemaVersion": 2, "config": {"mediaType": "a", "digest": "sha256:../../x", "size": 1}, "layers": []}
        ).encode(),
    ],
)
async def test_manifests_that_are_none(faulty, there, client, store, data):
    reference, _, _ = there
    faulty.faults.on("GET", "/manifests/", status(200, data, Content_Type=OCI_MANIFEST))
    with pytest.raises(EngineError) as caught:
        await pull(client, reference, store)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert is_empty(store)


async def test_a_config_that_names_another_number_of_layers(ours, client, store):
    made = Handmade(ours, "app")
    two = config_of(digest_of(tar_of(FILES)), digest_of(b""))
    await made.image(FILES, "1", config=await made.descriptor(two, "application/vnd.oci.image.config.v1+json"))
    with pytest.raises(InvalidInput, match="has 1 layers, and its config names 2"):
        await pull(client, Reference.parse(f"{ours.host}/app:1"), store)
    assert is_empty(store)


async def test_a_page_instead_of_an_error(faulty, client, store):
    page = b"<html>" + b"\x1b[31mred\n" * 1000
    faulty.faults.on("GET", "/manifests/", status(403, page, Content_Type="text/html"))
    with pytest.raises(EngineError) as caught:
        await pull(client, Reference.parse(f"{faulty.host}/app:1"), store)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
