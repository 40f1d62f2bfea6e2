"""Writes peer.json: what `buildah bud` makes of each case. To be run by hand, as root, where buildah is installed.

python -m tests.engine.build.reference.peer
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.engine.build.reference.material import (
    ENV_PATH,
    HERE,
    cases,
    list_files,
    make_base,
    make_context,
    plain_config,
)


class Buildah:
    def __init__(self, folder: Path) -> None:
        self._words = [
            "buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "overlay",
        ]  # fmt: skip

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._words, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed")
        return done.stdout.strip()

    def import_base(self, folder: Path) -> None:
        container = self("from", "scratch")
        self("add", container, str(folder), "/")
        self("config", "--env", f"PATH={ENV_PATH}", "--cmd", '["sh"]', container)
        self("commit", "-q", container, "base")
        self("rm", container)

    def build(self, dockerfile: Path, context: Path) -> dict[str, Any]:
        self(
            "bud",
            "-q",
            "--format",
            "docker",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "-t",
            "made",
            "-f",
            str(dockerfile),
            str(context),
        )
        inspected = json.loads(self("inspect", "--type", "image", "made"))["Docker"]
        container = self("from", "made")
        files = list_files(Path(self("mount", container)))
        self("rm", container)
        return {
            "config": plain_config(inspected["config"]),
            "author": inspected.get("author", ""),
            "files": files,
        }


def main() -> None:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        buildah = Buildah(folder)
        base = make_base(folder / "base")
        buildah.import_base(base)
        below = list_files(base)
        context = make_context(folder / "context")
        for name, text in cases().items():
            dockerfile = folder / "Dockerfile"
            dockerfile.write_text(text)
            try:
                result = buildah.build(dockerfile, context)
            except RuntimeError as error:
                result = {"error": str(error)}
            else:
                files = result["files"]
                result["files"] = {path: line for path, line in files.items() if below.get(path) != line}
                result["gone"] = sorted(set(below) - set(files)) if "scratch" not in text else []
            found[name] = result
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")
    (HERE / "peer.json").write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
