"""`python -m tests.engine.registry.crashes pull|push FOLDER`: kills the one who pulls or pushes, often.

After each time the store is whole, the registry shows a whole image or none, and the operation, done again, succeeds.
Prints how often it was killed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.errors import NotFound
from engine.images.config import ImageConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import Patience, RegistryClient, pull, push
from tests.engine.images.crashes import verify
from tests.engine.killing import at_points
from tests.ports import free_port

POINTS = 100
PATIENCE = Patience(connect=5, stall=5, attempts=3, first=0.01, longest=0.5)


def make_image(store: ImageStore, folder: Path) -> Image:
    layers = []
    for number in range(2):
        root = folder / f"layer{number}"
        root.mkdir()
        (root / f"file{number}").write_bytes(os.urandom(30_000))
        os.symlink("file", root / f"link{number}")
        layers.append(store.add_layer_from_dir(layers[-1].chain_id if layers else None, root))
    return store.create_image(ImageConfig(architecture="amd64"), layers, Reference.parse("made"))


class Case:
    def __init__(self, folder: Path, host: str) -> None:
        self.folder = folder
        self.reference = Reference.parse(f"{host}/app:1")
        self.here = ImageStore(folder / "here")
        self.image = make_image(self.here, folder)

    def speak(self, work: Callable[[RegistryClient], Awaitable[object]]) -> None:
        async def session() -> None:
            async with RegistryClient(patience=PATIENCE) as client:
                await work(client)

        asyncio.run(session())

    def pull(self) -> int:
        self.speak(lambda client: push(client, self.here, self.image, self.reference))
        self.here.close()

        def work() -> None:
            there = ImageStore(self.folder / "there")
            self.speak(lambda client: pull(client, self.reference, there))
            there.close()

        def after() -> None:
            there = ImageStore(self.folder / "there")
            try:
                verify(there)
                self.speak(lambda client: pull(client, self.reference, there))
                verify(there)
                assert there.get(str(self.reference)).id == self.image.id
                there.remove(str(self.reference))
                forget(there)
            finally:
                there.close()

        return at_points(POINTS, work, after)

    def push(self) -> int:
        self.here.close()
        checked = ImageStore(self.folder / "checked")

        def work() -> None:
            here = ImageStore(self.folder / "here")
            self.speak(lambda client: push(client, here, self.image, self.reference))
            here.close()

        def look() -> None:
            try:
                self.speak(lambda client: pull(client, self.reference, checked))
            except NotFound:
                return
            verify(checked)
            assert checked.get(str(self.reference)).id == self.image.id
            checked.remove(str(self.reference))
            forget(checked)

        def after() -> None:
            look()
            here = ImageStore(self.folder / "here")
            try:
                verify(here)
                self.speak(lambda client: push(client, here, self.image, self.reference))
                look()
                for blob in list(here.blobs):
                    if blob != self.image.id:  # the next one packs anew
                        here.blobs.delete(blob)
                        here.catalog.forget_tar(blob)
            finally:
                here.close()
            self._wipe()

        try:
            return at_points(POINTS, work, after)
        finally:
            checked.close()

    def _wipe(self) -> None:
        """The registry forgets the image; its bytes may stay."""
        url = f"http://{self.reference.domain}/v2/app"
        names = [f"blobs/{path.parent.name}:{path.name}" for path in self._linked("_layers")]
        names += [f"manifests/{path.parent.name}:{path.name}" for path in self._linked("_manifests")]
        for name in reversed(names):
            request = urllib.request.Request(f"{url}/{name}", method="DELETE")  # noqa: S310  (our own registry)
            urllib.request.urlopen(request).close()  # noqa: S310

    def _linked(self, kind: str) -> list[Path]:
        return [path for path in (self.folder / "registry/repositories/app" / kind).glob("*/*") if path.is_file()]


def forget(store: ImageStore) -> None:
    store.catalog._do("DELETE FROM leases")  # the dead one's, which only time ends
    store.collect(grace=-1)
    assert store.list(all=True) == []
    assert list(store.layers.folders()) == []
    assert list(store.blobs) == []


def main(operation: str, folder: Path) -> int:
    port = free_port()
    words = [sys.executable, "-m", "engine.registry.server", "--port", str(port), "--root", str(folder / "registry")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").close()
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
        killed: int = getattr(Case(folder, f"127.0.0.1:{port}"), operation)()
        return killed
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
