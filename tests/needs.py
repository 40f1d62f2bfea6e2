"""What tests need of the machine they run on.

Without it they are skipped, but not on a build machine, which sets CI: there scripts/test has installed everything, and
nobody would miss what is skipped.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skips the test, and on a build machine fails it."""
    if os.environ.get("CI"):
        pytest.fail(f"a build machine must have it: {what}", pytrace=False)
    pytest.skip(what)


def root() -> None:
    if os.geteuid():
        lacking("needs root")


def program(name: str) -> str:
    """Where it is."""
    return shutil.which(name) or lacking(f"{name} is not installed")


def programs(*names: str) -> pytest.MarkDecorator:
    """A mark for tests that call them by name. On a build machine they are called, there or not."""
    missing = [name for name in names if shutil.which(name) is None and not os.environ.get("CI")]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
