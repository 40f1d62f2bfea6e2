from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.build import Builder, BuildEvent, BuildRequest
from engine.config import EngineConfig
from engine.containers.ephemeral import Step
from engine.errors import NotFound
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.runtime.launcher import Exit


@dataclass
class FakeRunner:
    """Stands for containers: `write PATH TEXT` makes a file, `fail N` fails, anything else only counts."""

    steps: list[Step] = field(default_factory=list)
    lowers: list[tuple[Path, ...]] = field(default_factory=list)
    hooks: dict[str, Callable[[Step], object]] = field(default_factory=dict)

    async def __call__(
        self,
        *,
        lower: tuple[Path, ...],
        upper: Path,
        work: Path,
        step: Step,
        output: Callable[[str, bytes], None],
    ) -> Exit:
        self.steps.append(step)
        self.lowers.append(lower)
        verb, *words = step.args[-1].split()
        if verb in self.hooks:
            found = self.hooks[verb](step)
            if hasattr(found, "__await__"):
                await found
        if verb == "write":
            path = upper / words[0].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(" ".join(words[1:]))
        output("stdout", f"ran {step.args[-1]}\n".encode())
        return Exit(int(words[0]) if verb == "fail" else 0, False, 0.0, 0.0)


@dataclass
class Bench:
    """A builder over a real image store, with what it told and what it ran."""

    builder: Builder
    images: ImageStore
    runner: FakeRunner
    context: Path
    events: list[BuildEvent] = field(default_factory=list)
    pulls: list[str] = field(default_factory=list)

    async def build(self, dockerfile: str, **more: object) -> Image:
        """Builds `dockerfile` with the files below `context`."""
        self.events.clear()
        self.runner.steps.clear()
        self.runner.lowers.clear()
        self.context.mkdir(exist_ok=True)
        (self.context / "Dockerfile").write_text(dockerfile)
        return await self.builder.build(
            BuildRequest(context=self.context, **more),  # type: ignore[arg-type]
            self.pull,
            self.events.append,
        )

    async def pull(self, reference: Reference, platform: Platform | None) -> Image:
        self.pulls.append(reference.familiar)
        raise NotFound(f"pull access denied for {reference.familiar}")

    def files(self, image: Image) -> dict[str, str]:
        """The merged file tree: contents of files, `-> target` for links, nothing for folders."""
        found: dict[str, str] = {}
        for folder in reversed(self.images.lowerdirs(image.id)):
            for path in sorted(folder.rglob("*")):
                name = str(path.relative_to(folder))
                if path.is_symlink():
                    found[name] = f"-> {path.readlink()}"
                elif path.is_char_device():
                    found = {
                        known: text
                        for known, text in found.items()
                        if known.rstrip("/") != name and not known.startswith(name + "/")
                    }
                else:
                    found[name + "/" if path.is_dir() else name] = (
                        "" if path.is_dir() else path.read_text(errors="replace")
                    )
        return found

    def write(self, **files: str) -> None:
        for name, content in files.items():
            path = self.context / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    config = EngineConfig(data_root=tmp_path / "data", exec_root=tmp_path / "exec")
    images = ImageStore(config.data_root / "images")
    runner = FakeRunner()
    builder = Builder(config, images, runner)
    yield Bench(builder, images, runner, tmp_path / "context")
    builder.close()
    images.close()
    assert not list((config.data_root / "build" / "steps").glob("*")), "a step left its folder behind"
