from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.build import Builder, BuildRequest, Notice, StepCached
from engine.build.sharedcache import extract
from engine.config import EngineConfig
from engine.images.image import Image
from engine.images.manifest import Manifest, parse
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests.engine.build.conftest import Bench, FakeRunner

pytestmark = pytest.mark.kernel
TEXT = 'FROM scratch\nCOPY a /\nENV X=1\nRUN write /b b\nCMD ["x"]\n'


async def test_a_fresh_host_reuses_what_another_built(bench: Bench, tmp_path: Path) -> None:
    bench.write(a="A")
    built = await bench.build(TEXT, tags=("shared",), build_args={"BUILDKIT_INLINE_CACHE": "1"})
    manifest, descriptor = bench.images.manifest_of(built)

    elsewhere = ImageStore(tmp_path / "elsewhere/images")
    runner = FakeRunner()
    builder = Builder(EngineConfig(data_root=tmp_path / "elsewhere"), elsewhere, runner)

    async def pull(reference: Reference, platform: object) -> Image:
        for blob in (bench.images.blobs.root / "blobs/sha256").iterdir():
            elsewhere.blobs.put(blob.read_bytes())
        parsed, parent = parse(manifest), None
        assert isinstance(parsed, Manifest)
        for layer, diff_id in zip(parsed.layers, built.config.rootfs.diff_ids, strict=True):
            parent = elsewhere.import_layer(layer, diff_id, parent).chain_id
        return elsewhere.register_manifest(reference, manifest, descriptor.media_type)

    events: list[object] = []
    request = BuildRequest(context=bench.context, cache_from=("shared",))
    image = await builder.build(request, pull, events.append)
    assert runner.steps == []
    assert len([event for event in events if isinstance(event, StepCached)]) == 4
    assert image.config.rootfs == built.config.rootfs
    assert image.config.unknown == {}, "only asked for does an image carry its cache"
    await builder.build(BuildRequest(context=bench.context), pull, events.append)
    assert len(runner.steps) == 1, "what an image claims is not believed by builds that do not name it"
    builder.close()
    elsewhere.close()


async def test_images_that_bring_nothing_or_nonsense(bench: Bench) -> None:
    bench.write(a="A")
    plain = await bench.build(TEXT, tags=("plain",))
    assert extract(plain.config) == {}
    for nonsense in ("x", [1], [["k", 99, "t"]], [["k", "0", "t"]], {"a": 1}):
        odd = msgspec.structs.replace(plain.config, unknown={"dev.shipway.cache.v1": nonsense})
        assert extract(odd) == {}
    await bench.build(TEXT, cache_from=("plain", "missing"))
    assert [event.text for event in bench.events if isinstance(event, Notice)] == [
        "--cache-from missing: pull access denied for missing:latest"
    ]
