"""Writes peer_buildkit.json: what BuildKit makes of each case in modern.txt. To be run by hand, as root.

python -m tests.engine.build.reference.peer_buildkit unix:///run/buildkit/buildkitd.sock
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from engine.images.config import ContainerConfig, ImageConfig
from engine.images.reference import Reference
from engine.images.store import ImageStore
from tests.engine.build.reference.material import (
    ENV_PATH,
    HERE,
    cases,
    list_files,
    make_base,
    make_context,
    plain_config,
)


class BuildKit:
    def __init__(self, address: str, folder: Path) -> None:
        self._folder = folder
        images = ImageStore(folder / "images")
        layer = images.add_layer_from_dir(None, make_base(folder / "base"))
        inner = ContainerConfig(env=(f"PATH={ENV_PATH}",), cmd=("sh",))
        image = images.create_image(ImageConfig(architecture="amd64", config=inner), [layer], Reference.parse("base"))
        _, described = images.manifest_of(image)
        images.close()
        self.below = list_files(images.layers.folder(layer.chain_id))
        self._words = ["buildctl", "--addr", address, "build", "--progress=plain", "--no-cache"]
        self._words += ["--frontend", "dockerfile.v0", "--local", f"context={make_context(folder / 'context')}"]
        self._words += ["--oci-layout", f"base={images.root}"]
        self._words += ["--opt", f"context:base=oci-layout://base@{described.digest}"]

    def build(self, text: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            folder = Path(scratch)
            (folder / "Dockerfile").write_text(text)
            words = [*self._words, "--local", f"dockerfile={folder}"]
            words += ["--output", f"type=tar,dest={folder}/files.tar", "--output", f"type=oci,dest={folder}/image.tar"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                return {"error": done.stderr.strip().splitlines()[-1]}
            (folder / "files").mkdir()
            unpack = [
                "tar",
                "-xpf",
                folder / "files.tar",
                "-C",
                folder / "files",
                "--numeric-owner",
                "--xattrs",
                "--warning=no-timestamp",
            ]
            subprocess.run(unpack, check=True)
            files = list_files(folder / "files")
            config = _config(folder / "image.tar")
        return {
            "config": plain_config(config.get("config", {})),
            "author": config.get("author", ""),
            "files": {path: line for path, line in files.items() if self.below.get(path) != line},
            "gone": sorted(set(self.below) - set(files)) if "scratch" not in text else [],
        }


def _config(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            member = tar.extractfile(name)
            assert member is not None
            return json.load(member)

        def blob(descriptor: dict[str, Any]) -> Any:
            return read("blobs/" + descriptor["digest"].replace(":", "/"))

        found = blob(read("index.json")["manifests"][0])
        while "manifests" in found:
            found = blob(found["manifests"][0])
        config: dict[str, Any] = blob(found["config"])
        return config


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        peer = BuildKit(sys.argv[1], Path(scratch))
        found = {name: peer.build(text) for name, text in cases("modern.txt").items()}
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (HERE / "peer_buildkit.json").write_text(text)


if __name__ == "__main__":
    main()
