from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.source.git import Source
from tests.server.gitrepo import GitRepo


@pytest.mark.kernel
def test_a_repository_of_this_disk_is_read_whoever_owns_it(tmp_path: Path) -> None:
    """git refuses what belongs to somebody else, unless it is told otherwise: it, and the git that it starts."""
    made = GitRepo(tmp_path / "web")
    sha = made.commit("Greet the world", {"pipelines.yaml": "pipelines: {}\n"})
    for path in (tmp_path / "web", *(tmp_path / "web").rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    with Source(str(tmp_path / "web"), sha) as source:
        assert source.has(sha)
