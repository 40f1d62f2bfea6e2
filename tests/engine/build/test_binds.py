from __future__ import annotations

from pathlib import Path

import pytest

from engine.build.selection import pick
from engine.build.steps.binds import LaidOut
from engine.build.trees import FolderTree

pytestmark = pytest.mark.kernel


def test_what_could_not_be_laid_out_can_be_the_next_time(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("here")
    tree = FolderTree.at(context)
    laid_out = LaidOut(tree, tmp_path / "laid-out")
    (found,) = pick(tree, ["file"])
    (context / "file").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        laid_out.show(found)
    (tmp_path / "away").rename(context / "file")
    assert laid_out.show(found).parts[0].read_text() == "here"
    tree.close()
