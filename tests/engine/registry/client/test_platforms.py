"""Indexes of several platforms, and `--platform`."""

from __future__ import annotations

import pytest

from engine.errors import InvalidInput
from engine.images.reference import Reference
from engine.registry.client import pull
from tests.engine.registry.client.conftest import files_of, is_empty
from tests.engine.registry.client.handmade import Handmade
from tests.engine.registry.conftest import OCI_CONFIG, OCI_LAYER

PLATFORMS = {
    "linux/amd64": {"architecture": "amd64", "os": "linux"},
    "linux/arm64": {"architecture": "arm64", "os": "linux", "variant": "v8"},
    "linux/arm/v6": {"architecture": "arm", "os": "linux", "variant": "v6"},
    "linux/arm/v7": {"architecture": "arm", "os": "linux", "variant": "v7"},
}


@pytest.fixture
async def index(registry, repository):
    """An index with one image a platform: (reference, the index's descriptor)."""
    made = Handmade(registry, repository)
    entries = [
        {
            **await made.image({"platform": name.encode()}, architecture=str(platform["architecture"])),
            "platform": platform,
        }
        for name, platform in PLATFORMS.items()
    ]
    described = await made.index(entries, "1")
    return Reference.parse(f"{registry.host}/{repository}:1"), described


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
    ],
)
async def test_the_platform_asked_for(index, client, store, asked, got):
    reference, described = index
    image = await pull(client, reference, store, platform=asked)
    assert files_of(store, image) == {"platform": got.encode()}
    # The name's own digest is the index's: it is what people pin.
    assert f"{reference.repository}@{described['digest']}" in image.digests
    assert image.manifest is not None
    assert image.manifest.digest != described["digest"]


async def test_an_index_by_digest(index, client, store):
    reference, described = index
    image = await pull(client, reference.with_digest(described["digest"]), store, platform="linux/arm64")
    assert files_of(store, image) == {"platform": b"linux/arm64"}
    assert store.get(f"{reference.repository}@{described['digest']}").id == image.id


async def test_the_tag_follows_the_platform_pulled_last(index, client, store):
    reference, _ = index
    await pull(client, reference, store, platform="linux/arm64")
    last = await pull(client, reference, store, platform="linux/amd64")
    assert store.get(str(reference)).id == last.id


async def test_a_platform_that_is_not_there(index, client, store):
    reference, _ = index
    with pytest.raises(InvalidInput, match="no matching manifest for linux/s390x: the index offers linux/amd64, "):
        await pull(client, reference, store, platform="linux/s390x")
    assert is_empty(store)


async def test_an_image_of_another_platform_is_not_taken_when_asked_for_one(ours, client, store):
    await Handmade(ours, "app").image({"a": b"1"}, "1", architecture="arm64")
    reference = Reference.parse(f"{ours.host}/app:1")
    with pytest.raises(InvalidInput, match="is for linux/arm64, not for linux/amd64"):
        await pull(client, reference, store, platform="linux/amd64")
    assert is_empty(store)
    image = await pull(client, reference, store)
    assert image.config.architecture == "arm64"


async def test_an_index_of_indexes(ours, client, store):
    made = Handmade(ours, "app")
    inner = await made.image({"a": b"1"})
    for _ in range(2):
        inner = await made.index([{**inner, "platform": PLATFORMS["linux/amd64"]}])
    await made.index([{**inner, "platform": PLATFORMS["linux/amd64"]}], "deep")
    reference = Reference.parse(f"{ours.host}/app:deep")
    with pytest.raises(InvalidInput, match="index of indexes"):
        await pull(client, reference, store, platform="linux/amd64")
    image = await pull(client, reference.with_digest(inner["digest"]), store, platform="linux/amd64")
    assert files_of(store, image) == {"a": b"1"}


async def test_what_is_no_container_image(ours, client, store):
    made = Handmade(ours, "app")
    await made.image({"a": b"1"}, "chart", config=await made.descriptor(b"{}", "application/vnd.cncf.helm.config.v1"))
    with pytest.raises(InvalidInput, match=r"no container image but application/vnd\.cncf\.helm"):
        await pull(client, Reference.parse(f"{ours.host}/app:chart"), store)
    assert is_empty(store)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/x-thing",
    ],
)
async def test_layers_of_types_that_we_do_not_take(ours, client, store, media_type):
    await Handmade(ours, "app").image({"a": b"1"}, "1", media_type=media_type)
    with pytest.raises(InvalidInput, match="layer"):
        await pull(client, Reference.parse(f"{ours.host}/app:1"), store)
    assert is_empty(store)


async def test_schema_1_is_refused_with_a_word(faulty, client, store):
    from tests.engine.registry.client.faults import status

    body = b'{"schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": [], "history": []}'
    faulty.faults.on(
        "GET",
        "/manifests/",
        status(200, body, Content_Type="application/vnd.docker.distribution.manifest.v1+prettyjws"),
    )
    with pytest.raises(InvalidInput, match="schema 1, which is no longer supported"):
        await pull(client, Reference.parse(f"{faulty.host}/app:1"), store)


async def test_annotations_and_media_types_travel(registry, repository, client, new_store):
    made = Handmade(registry, repository)
    described = await made.image({"a": b"1"}, "1", annotations={"org.example": "kept"})
    assert OCI_CONFIG
    assert OCI_LAYER
    here = new_store()
    image = await pull(client, Reference.parse(f"{registry.host}/{repository}:1"), here)
    data, found = here.manifest_of(image)
    assert found.digest == described["digest"]
    assert b'"org.example": "kept"' in data
