"""`python -m tests.engine.build.crashes FOLDER`: kills a build in the middle, often.

After each time the next engine has nothing left of it, every layer and result is whole, and the same build succeeds,
takes what was done from the cache and makes the same image. Prints how often it was killed.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from engine.build import Builder, BuildEvent, BuildRequest, StepCached
from engine.config import EngineConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests.engine.build.conftest import FakeRunner
from tests.engine.images.crashes import verify
from tests.engine.killing import at_points

POINTS = 60
TEXT = b"""\
FROM scratch AS one
COPY a /d/
ADD packed.tar /u/
FROM scratch
WORKDIR /w
COPY --from=one /d /e
RUN write /made by-a-command
COPY --link b /
LABEL x=y
"""


async def _pull(reference: Reference, platform: object) -> Image:
    raise AssertionError(reference)


class Case:
    def __init__(self, folder: Path) -> None:
        self._config = EngineConfig(data_root=folder / "data", exec_root=folder / "x")
        self._context = folder / "context"
        (self._context / "a").mkdir(parents=True)
        (self._context / "a/f").write_text("f")
        (self._context / "b").write_bytes(b"b" * 100_000)
        with tarfile.open(self._context / "packed.tar", "w") as tar:
            info = tarfile.TarInfo("deep/er")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"er\n"))
        self.images: set[str] = set()

    def build(self, tell: Callable[[BuildEvent], None] = lambda event: None, *, fresh: bool = False) -> Image:
        images = ImageStore(self._config.data_root / "images")
        builder = Builder(self._config, images, FakeRunner())
        request = BuildRequest(
            context=self._context,
            dockerfile_content=TEXT,
            tags=("made",),
            no_cache=fresh,
            build_args={"SOURCE_DATE_EPOCH": "1700000000"},
        )
        try:
            return asyncio.run(builder.build(request, _pull, tell))
        finally:
            builder.close()
            images.close()

    def after(self) -> None:
        images = ImageStore(self._config.data_root / "images")
        builder = Builder(self._config, images, FakeRunner())
        try:
            assert not list((self._config.data_root / "build").glob("steps/*"))
            for chain in builder.cache.chains():
                assert images.layer(chain) is None or images.layers.has(chain)
            verify(images)
        finally:
            builder.close()
            images.close()
        self.images.add(self.build().id)
        cached: list[BuildEvent] = []
        self.images.add(self.build(cached.append).id)
        assert sum(isinstance(event, StepCached) for event in cached) == 7
        store = ImageStore(self._config.data_root / "images")
        verify(store)
        store.remove("made")
        store.close()


def main() -> None:
    case = Case(Path(sys.argv[1]))
    killed = at_points(POINTS, lambda: case.build(fresh=True), case.after)
    assert len(case.images) == 1, "the same sources are the same image, however often a build was interrupted"
    print(killed)


if __name__ == "__main__":
    main()
