"""Caches in a registry, between two engines' stores: what one has built, the other need not build."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.build import Builder, BuildEvent, BuildRequest, Notice, StepCached, StepStarted
from engine.build.registrycache import RegistryCaches
from engine.config import EngineConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import RegistryClient, push
from engine.registry.server import make_app, start
from tests.engine.build.conftest import Bench, FakeRunner

pytestmark = pytest.mark.kernel
TEXT = """\
FROM scratch AS tools
COPY tool /
RUN write /made by-tools
FROM scratch AS side
RUN write /aside x
FROM scratch
ENV X=1
COPY --from=tools /made /
COPY --from=side /aside /
COPY --link app /
RUN write /b b
CMD ["x"]
"""


class Host:
    """An engine's store and builder, and its way to the registry."""

    def __init__(self, folder: Path, context: Path) -> None:
        self.images = ImageStore(folder / "images")
        self.runner = FakeRunner()
        self.builder = Builder(EngineConfig(data_root=folder), self.images, self.runner)
        self.client = RegistryClient()
        self.context = context
        self.events: list[BuildEvent] = []

    async def build(self, text: str, **more: object) -> Image:
        self.events.clear()
        self.runner.steps.clear()
        request = BuildRequest(context=self.context, dockerfile_content=text.encode(), **more)  # type: ignore[arg-type]
        caches = RegistryCaches(self.client, self.images, {})
        return await self.builder.build(request, self._pull, self.events.append, caches)

    async def _pull(self, reference: Reference, platform: object) -> Image:
        raise AssertionError(f"{reference} is asked for")

    @property
    def cached(self) -> int:
        return sum(isinstance(event, StepCached) for event in self.events)

    @property
    def notices(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]

    async def close(self) -> None:
        await self.client.close()
        self.builder.close()
        self.images.close()


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[str]:
    runner, port = await start(make_app(tmp_path / "registry"), "127.0.0.1", 0)
    yield f"127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def hosts(tmp_path: Path, bench: Bench) -> AsyncIterator[tuple[Host, Host]]:
    bench.write(tool="T", app="A")
    two = Host(tmp_path / "one", bench.context), Host(tmp_path / "two", bench.context)
    yield two
    for host in two:
        await host.close()


async def test_a_fresh_host_reuses_every_step_of_every_stage(hosts: tuple[Host, Host], registry: str) -> None:
    one, two = hosts
    built = await one.build(TEXT, cache_to=(f"{registry}/app:cache",))
    assert len(one.runner.steps) == 3
    image = await two.build(TEXT, cache_from=(f"{registry}/app:cache",))
    assert two.runner.steps == []
    assert two.cached == sum(isinstance(event, StepStarted) for event in two.events) - 3, "all but the three FROMs"
    assert image.id == built.id
    await two.build(TEXT)
    assert len(two.runner.steps) == 3, "what a registry claims is not believed by builds that do not name it"


async def test_only_what_is_needed_travels(hosts: tuple[Host, Host], registry: str) -> None:
    one, two = hosts
    await one.build("FROM scratch\nRUN write /big 1\nRUN write /other 2\n", cache_to=(f"{registry}/app:cache",))
    await two.build("FROM scratch\nRUN write /big 1\nRUN write /more 3\n", cache_from=(f"{registry}/app:cache",))
    assert [step.args[-1] for step in two.runner.steps] == ["write /more 3"]
    assert len(list((two.images.blobs.root / "blobs/sha256").iterdir())) == 3, "a listing, a layer and a config"


async def test_a_cache_grows(hosts: tuple[Host, Host], registry: str) -> None:
    one, two = hosts
    name = (f"{registry}/app:cache",)
    await one.build("FROM scratch\nRUN write /a 1\n", cache_to=name)
    await two.build("FROM scratch\nRUN write /b 2\n", cache_from=name, cache_to=name)
    await one.builder.build(BuildRequest(dockerfile_content=b"FROM scratch\nRUN write /c 3\n"), one._pull, print)
    await one.build("FROM scratch\nRUN write /b 2\n", cache_from=name)
    assert one.runner.steps == []
    await two.build("FROM scratch\nRUN write /a 1\n", cache_from=name)
    assert two.runner.steps == []


async def test_an_image_carries_the_steps_of_its_own_layers(hosts: tuple[Host, Host], registry: str) -> None:
    one, two = hosts
    name = f"{registry}/app:1"
    text = "FROM scratch\nCOPY app /\nRUN write /b b\n"
    built = await one.build(text, tags=(name,), build_args={"BUILDKIT_INLINE_CACHE": "1"})
    await push(one.client, one.images, built, Reference.parse(name))
    image = await two.build(text, cache_from=(name,))
    assert (two.runner.steps, two.cached) == ([], 2)
    assert image.config.rootfs == built.config.rootfs
    assert image.config.unknown == {}, "only asked for does an image carry its cache"


async def test_a_registry_that_is_away_fails_no_build(hosts: tuple[Host, Host], registry: str) -> None:
    one, _ = hosts
    await one.build(
        "FROM scratch\n", cache_from=(f"{registry}/no:where",), cache_to=(f"{registry}/x@sha256:{'0' * 64}",)
    )
    assert len(one.notices) == 2
    assert one.notices[0].startswith(f"--cache-from {registry}/no:where: manifest for {registry}/no:where not found")
    assert "name a tag" in one.notices[1]


async def test_a_lying_cache_is_not_believed(hosts: tuple[Host, Host], registry: str) -> None:
    """Its records name layers that are not what the steps stand on, or blobs that are others'."""
    one, two = hosts
    name = (f"{registry}/app:cache",)
    await one.build("FROM scratch\nRUN write /a 1\nRUN write /b 2\n", cache_to=name)
    caches = RegistryCaches(one.client, one.images, {})
    records = dict((await caches.fetch(name[0])).records)
    first, second = sorted(records)
    swapped = {first: records[second], second: records[first]}
    await RegistryCaches(one.client, one.images, {}).publish(f"{registry}/app:lies", swapped)
    image = await two.build("FROM scratch\nRUN write /a 1\nRUN write /b 2\n", cache_from=(f"{registry}/app:lies",))
    assert len(image.config.rootfs.diff_ids) == 2
    await two.build("FROM scratch\nRUN write /a 1\nRUN write /b 2\n")
    assert len(two.runner.steps) == 2


async def test_a_linked_copy_goes_over_other_layers(bench: Bench) -> None:
    bench.write(f="1", one="1", two="2")
    await bench.build("FROM scratch\nCOPY one /\nCOPY --link f /\n")
    image = await bench.build("FROM scratch\nCOPY two /\nCOPY --link f /\n")
    assert bench.files(image) == {"two": "2", "f": "1"}
