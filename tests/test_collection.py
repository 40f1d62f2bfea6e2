"""That all tests are run: a folder whose name the runner passes over by itself would never be missed."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    patterns = pytestconfig.getini("norecursedirs")
    folders = {path.parent for path in Path(__file__).parent.rglob("test_*.py")}
    assert folders
    assert not [folder for folder in folders if any(fnmatch(folder.name, pattern) for pattern in patterns)]
