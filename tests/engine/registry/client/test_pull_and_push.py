"""Images there and back, through our registry and through Debian's."""

from __future__ import annotations

import gzip
import hashlib
import json
import os

import pytest

from engine.errors import InvalidInput, NotFound, Unavailable
from engine.images.manifest import parse
from engine.images.reference import Reference
from engine.registry.client import ProgressEvent, RegistryClient, pull, push
from tests.engine.registry.client.conftest import PATIENCE, files_of, is_empty
from tests.engine.registry.conftest import OCI_MANIFEST
from tests.engine.tars import tar_of
from tests.ports import free_port

FILES = {"etc/motd": b"hello\n", "bin/tool": os.urandom(300_000)}
MORE = {"srv/app.py": b"print(1)\n"}


async def test_what_is_pushed_is_what_is_pulled(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{registry.host}/{repository}:1.0")
    image = make_image(here, FILES, MORE)
    pushed = await push(client, here, image, reference)
    pulled = await pull(client, reference, there)
    assert pulled.id == image.id
    assert files_of(there, pulled) == FILES | MORE
    assert pulled.tags == (str(reference),)
    assert pulled.digests == (f"{reference.repository}@{pushed.digest}",)
    assert here.get(image.id).digests == pulled.digests
    url = f"{registry.url}/v2/{repository}/manifests/1.0"
    async with registry.http.head(url, headers={"Accept": OCI_MANIFEST}) as answer:
        assert answer.headers["Docker-Content-Digest"] == pushed.digest
        assert int(answer.headers["Content-Length"]) == pushed.size


async def test_by_digest_it_has_no_tag(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{registry.host}/{repository}:1.0")
    pushed = await push(client, here, make_image(here, FILES), reference)
    pulled = await pull(client, reference.with_digest(pushed.digest), there)
    assert pulled.tags == ()
    assert pulled.digests == (f"{reference.repository}@{pushed.digest}",)
    assert there.get(f"{reference.repository}@{pushed.digest}").id == pulled.id


async def test_what_is_there_does_not_travel_again(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{registry.host}/{repository}:1.0")
    image = make_image(here, FILES)
    news: list[ProgressEvent] = []
    await push(client, here, image, reference)
    await push(client, here, image, reference, progress=news.append)
    assert {event.status for event in news} == {"Layer already exists"}
    await pull(client, reference, there)
    news.clear()
    await pull(client, reference, there, progress=news.append)
    assert {event.status for event in news} == {"Already exists"}


async def test_a_second_image_brings_only_what_is_new(faulty, client, new_store, make_image):
    here, there = new_store(), new_store()
    for name, layers in (("app:1", [FILES]), ("app:2", [FILES, MORE])):
        await push(client, here, make_image(here, *layers), Reference.parse(f"{faulty.host}/{name}"))
    await pull(client, Reference.parse(f"{faulty.host}/app:1"), there)
    before = faulty.faults.count("GET", "/blobs/")
    second = await pull(client, Reference.parse(f"{faulty.host}/app:2"), there)
    assert faulty.faults.count("GET", "/blobs/") == before + 2, "a config and one layer"
    assert files_of(there, second) == FILES | MORE


async def test_layers_and_bytes_are_reported(ours, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{ours.host}/app:1")
    image = make_image(here, FILES, MORE)
    sent: list[ProgressEvent] = []
    got: list[ProgressEvent] = []
    await push(client, here, image, reference, progress=sent.append)
    await pull(client, reference, there, progress=got.append)
    again: list[ProgressEvent] = []
    await push(client, here, image, Reference.parse(f"{ours.host}/other:1"), progress=again.append)
    layers = parse(here.manifest_of(image)[0]).layers
    for layer, diff_id in zip(layers, image.config.rootfs.diff_ids, strict=True):
        # Docker names layers by their files' digest in a push, by their bytes' in a pull.
        pushed, pulled = diff_id[7:19], layer.digest[7:19]
        assert [event.status for event in sent if event.id == pushed and event.current is None] == [
            "Preparing",
            "Pushed",
        ]
        assert [event.status for event in again if event.id == pushed] == ["Preparing", "Mounted from app"]
        assert [event.status for event in got if event.id == pulled and event.current is None] == [
            "Pulling fs layer",
            "Download complete",
            "Extracting",
            "Pull complete",
        ]
        assert all(event.total == layer.size for event in got if event.id == pulled and event.current is not None)


async def test_nothing_of_that_name(registry, repository, client, store):
    reference = Reference.parse(f"{registry.host}/{repository}:none")
    with pytest.raises(NotFound, match=rf"manifest for {reference} not found") as caught:
        await pull(client, reference, store)
    assert "\n" not in str(caught.value)
    assert is_empty(store)


async def test_a_registry_that_is_down(store, make_image):
    host = f"127.0.0.1:{free_port()}"
    reference = Reference.parse(f"{host}/app:1")
    async with RegistryClient(patience=PATIENCE) as client:
        with pytest.raises(Unavailable, match=host) as pulling:
            await pull(client, reference, store)
        with pytest.raises(Unavailable, match=host) as pushing:
            await push(client, store, make_image(store, MORE), reference)
    for caught in (pulling, pushing):
        assert "\n" not in str(caught.value)
        assert "onnect" in str(caught.value)


async def test_a_digest_can_not_be_pushed_to(ours, client, store, make_image):
    reference = Reference.parse(f"{ours.host}/app@sha256:{'0' * 64}")
    with pytest.raises(InvalidInput, match="name a tag"):
        await push(client, store, make_image(store, MORE), reference)


@pytest.mark.parametrize("form", ["docker", "oci"])
@pytest.mark.parametrize("packing", ["gzip", "zstd", "none"])
async def test_every_form_of_image(registry, repository, client, store, form, packing):
    import zstandard

    tar = tar_of(FILES)
    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "none": bytes}[packing]
    types = {
        "docker": (
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
            {"gzip": "diff.tar.gzip", "zstd": "diff.tar.zstd", "none": "diff.tar"},
            "application/vnd.docker.image.rootfs.",
        ),
        "oci": (
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.config.v1+json",
            {"gzip": "tar+gzip", "zstd": "tar+zstd", "none": "tar"},
            "application/vnd.oci.image.layer.v1.",
        ),
    }[form]
    layer = pack(tar)
    diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    ).encode()
    digest = await registry.put_manifest(
        repository,
        "1",
        {
            "schemaVersion": 2,
            "mediaType": types[0],
            "config": {
                "mediaType": types[1],
                "digest": await registry.put_blob(repository, config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": types[3] + types[2][packing],
                    "digest": await registry.put_blob(repository, layer),
                    "size": len(layer),
                }
            ],
        },
    )
    reference = Reference.parse(f"{registry.host}/{repository}:1")
    image = await pull(client, reference, store)
    assert files_of(store, image) == FILES
    assert image.manifest is not None
    assert image.manifest.digest == digest
    # What was pulled is pushed on as it is: the digest that was tested stays the digest.
    again = Reference.parse(f"{registry.host}/{repository}:2")
    assert (await push(client, store, image, again)).digest == digest


async def test_an_image_without_layers(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{registry.host}/{repository}:empty")
    image = make_image(here)
    await push(client, here, image, reference)
    assert (await pull(client, reference, there)).id == image.id


async def test_the_same_layer_twice_in_one_image(registry, repository, client, new_store, make_image):
    here, there = new_store(), new_store()
    reference = Reference.parse(f"{registry.host}/{repository}:twice")
    image = make_image(here, FILES, MORE, FILES)
    await push(client, here, image, reference)
    pulled = await pull(client, reference, there)
    assert len(pulled.config.rootfs.diff_ids) == 3
    assert files_of(there, pulled) == FILES | MORE
