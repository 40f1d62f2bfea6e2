"""A client with little patience, stores to pull into and push from, and registries that can be made to fail."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from engine.images.config import ContainerConfig, ImageConfig, RootFS
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import Patience, RegistryClient
from engine.registry.server import make_app, start
from tests.engine.registry.client.faults import Faults
from tests.engine.registry.conftest import Wire

PATIENCE = Patience(connect=30.0, stall=30.0, attempts=3, first=0.01, longest=0.5)


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient(patience=PATIENCE) as made:
        yield made


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Callable[[], ImageStore]]:
    """Makes fresh image stores: hosts that know nothing of each other."""
    made: list[ImageStore] = []

    def make() -> ImageStore:
        made.append(ImageStore(tmp_path / f"images{len(made)}"))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: Callable[[], ImageStore]) -> ImageStore:
    return new_store()


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., Image]:
    """`make_image(store, {"path": b"content"}, {...})`: an image with one layer for each dict."""
    count = itertools.count()

    def make(store: ImageStore, *layers: dict[str, bytes], name: str | None = None) -> Image:
        made = []
        for files in layers:
            folder = tmp_path / f"layer{next(count)}"
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            made.append(store.add_layer_from_dir(made[-1].chain_id if made else None, folder))
        config = ImageConfig(
            architecture="amd64",
            created="2024-01-01T00:00:00Z",
            config=ContainerConfig(env=("A=b",), cmd=("sh",)),
            rootfs=RootFS(tuple(layer.diff_id for layer in made)),
        )
        return store.create_image(config, made, Reference.parse(name) if name else None)

    return make


@pytest.fixture(params=["ours", "debian"])
def registry(request: pytest.FixtureRequest) -> Wire:
    """Each test with our registry, and with Debian's."""
    wire: Wire = request.getfixturevalue(request.param)
    return wire


@pytest.fixture
def repository() -> str:
    """A repository that no other test uses."""
    return f"tests/r{secrets.token_hex(6)}"


@pytest.fixture
async def faulty(tmp_path: Path, http: object) -> AsyncIterator[FaultyWire]:
    """Our registry, with faults to order."""
    faults = Faults()
    app = make_app(tmp_path / "faulty")
    app.middlewares.insert(0, faults.middleware)
    runner, port = await start(app, "127.0.0.1", 0)
    faults.app = app
    yield FaultyWire(f"http://127.0.0.1:{port}", http, faults)  # type: ignore[arg-type]
    faults.release()
    await runner.cleanup()


class FaultyWire(Wire):
    def __init__(self, url: str, http: object, faults: Faults) -> None:
        super().__init__(url, http)  # type: ignore[arg-type]
        self.faults = faults


def files_of(store: ImageStore, image: Image) -> dict[str, bytes]:
    """What a container of this image would see: each file's path and content."""
    found: dict[str, bytes] = {}
    for folder in reversed(store.lowerdirs(image.id)):
        found |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found


def is_empty(store: ImageStore) -> bool:
    """Whether nothing of a failed pull can ever be taken for an image or a layer."""
    return not store.list(all=True) and not list(store.layers.folders())
