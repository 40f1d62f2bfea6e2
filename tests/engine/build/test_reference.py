"""Images equal those that buildah and BuildKit make: configuration and file tree, over real containers.

peer.json was written by reference/peer.py, peer_buildkit.json by reference/peer_buildkit.py. What differs for a
reason is listed here with the reason.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.build import Builder, BuildRequest
from engine.build.overlayroot import merged
from engine.config import EngineConfig
from engine.containers import idranges
from engine.containers.ephemeral import run_ephemeral
from engine.containers.idranges import IdRanges
from engine.images.config import ContainerConfig, ImageConfig, container_config_json
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.network import Networks
from engine.runtime.launcher import Launcher
from tests import needs
from tests.engine.build.reference.material import (
    ENV_PATH,
    HERE,
    cases,
    list_files,
    make_base,
    make_context,
    plain_config,
)

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]
# What we do otherwise, by the case: where lines begin so, the reference or BuildKit is on our side.
REASONS = {
    # $0 is the word that stands in the list; buildah runs the path that it found for it.
    "run-exec-form": "files x",
    # "EXPOSE" with a range exposes each port of it, as BuildKit has it.
    "expose": "config ExposedPorts",
    # "Build arguments [...] are automatically inherited by child stages."
    "arg-inherited-by-child-stage": "files x",
    # "copied, including filesystem metadata": set-id bits are part of the mode.
    "copy-all": "files all/setuid",
    "copy-modes": "files m/setuid",
    # "--chown": "request specific ownership of the content added", be it from an archive.
    "add-tar-chown": "files a/",
    # A working directory is kept in its shortest form, as BuildKit and Docker keep it.
    "workdir-variable": "config WorkingDir",
    "workdir-dots": "config WorkingDir",
    # "The SHELL instruction [...] affects [...] CMD": buildah 1.28 forgets it for CMD.
    "shell": "config Cmd",
    # VOLUME is configuration; the folder is made with the container.
    "volume": "files json",
    # Places that only a mount needed are taken away again.
    "mount-cache": "files var",
}
# The same for BuildKit.
MODERN_REASONS: dict[str, tuple[str, ...]] = {
    # "Files matching any of the specified --exclude patterns are not copied, even if their paths match the pattern
    # specified in <src>": BuildKit forgets it for files that the source names themselves.
    "copy-exclude-file": ("files a/a1.txt",),
    # "All files and directories copied from the build context are created with [...]": a destination that is only
    # made on the way is none of them, and buildah leaves it at 0755, too.
    "heredoc-copy-several": ("files into",),
    # "--chown": "request specific ownership of the content added", be it a folder that the archive only implies.
    "add-unpack-chown": ("files a/deep",),
    "copy-chmod-set-bits": ("files b:",),
    # "If not specified, the default working directory is /": buildah and Docker leave it unsaid.
    "copy-from-scratch-image": ("config WorkingDir",),
    "from-empty-scratch": ("config WorkingDir",),
}
PEER: dict[str, Any] = json.loads((HERE / "peer.json").read_text())
BUILDKIT: dict[str, Any] = json.loads((HERE / "peer_buildkit.json").read_text())


@dataclass
class Engine:
    builder: Builder
    images: ImageStore
    context: Path
    below: dict[str, str]

    async def build(self, text: str) -> dict[str, Any]:
        said: list[object] = []
        request = BuildRequest(context=self.context, dockerfile_content=text.encode(), network="none")
        try:
            image = await self.builder.build(request, self._pull, said.append)
        except Exception as error:
            error.add_note("\n".join(map(str, said)))
            raise
        with merged(self.images.lowerdirs(image.id)) as root:
            files = list_files(Path(f"/proc/self/fd/{root}"))
        return {
            "config": plain_config(json.loads(json.dumps(container_config_json(image.config.config)))),
            "author": image.config.author,
            "files": {path: line for path, line in files.items() if self.below.get(path) != line},
            "gone": sorted(set(self.below) - set(files)) if "scratch" not in text else [],
        }

    async def _pull(self, reference: Reference, platform: object) -> Any:
        raise AssertionError(f"{reference} should be here")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    needs.root()
    folder = tmp_path_factory.mktemp("reference")
    config = EngineConfig(data_root=folder / "data", exec_root=Path(tempfile.mkdtemp(prefix="sw")))
    images = ImageStore(config.data_root / "images")
    base = make_base(config.data_root / "base")
    below = list_files(base)
    layer = images.add_layer_from_dir(None, base)
    images.create_image(
        ImageConfig(architecture="amd64", config=ContainerConfig(env=(f"PATH={ENV_PATH}",), cmd=("sh",))),
        [layer],
        Reference.parse("base"),
    )
    launcher = await Launcher.connect(config.exec_root, config.cgroup_parent)
    networks = Networks(config, config.data_root / "networks")
    ranges = None if await idranges.lack(launcher, config.data_root) else IdRanges(config.instance, lambda: ())
    builder = Builder(config, images, functools.partial(run_ephemeral, launcher, networks, config), ranges=ranges)
    yield Engine(builder, images, make_context(folder / "context"), below)
    builder.close()
    await launcher.shutdown()
    images.close()
    shutil.rmtree(config.exec_root)


@pytest.mark.parametrize("name", cases())
async def test_same_as_buildah(engine: Engine, name: str) -> None:
    peer = PEER[name]
    ours = await engine.build(cases()[name])
    if found := [line for line in differences(ours, peer) if not line.startswith(REASONS.get(name, "-"))]:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize("name", cases("modern.txt"))
async def test_same_as_buildkit(engine: Engine, name: str) -> None:
    ours = await engine.build(cases("modern.txt")[name])
    reasons = ("config ArgsEscaped", *MODERN_REASONS.get(name, ()))
    if found := [line for line in differences(ours, BUILDKIT[name]) if not line.startswith(reasons)]:
        pytest.fail("\n".join(found), pytrace=False)


def differences(ours: dict[str, Any], peer: dict[str, Any]) -> list[str]:
    """A line for each difference, for a person to read."""
    found = []
    for part in ("config", "files"):
        for key in sorted(ours[part].keys() | peer[part].keys()):
            left, right = ours[part].get(key), peer[part].get(key)
            found += [f"{part} {key}: ours {left}, theirs {right}"] if left != right else []
    found += [
        f"{part}: ours {ours[part]}, theirs {peer[part]}" for part in ("author", "gone") if ours[part] != peer[part]
    ]
    return found
