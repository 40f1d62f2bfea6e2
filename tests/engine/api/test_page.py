"""docs/engine.md tells what there is."""

from __future__ import annotations

import re

from engine.__main__ import engine
from tests.engine.containers.daemon import ROOT

PAGE = (ROOT / "docs" / "engine.md").read_text()


def _section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_flag_is_one() -> None:
    known = {option for parameter in engine.params for option in parameter.opts}
    rows = [line.split("|")[1] for line in _section("Flags").splitlines() if line.startswith("| `")]
    named = {flag for row in rows for flag in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", row)}
    assert named
    assert named <= known


def test_every_message_is_one() -> None:
    source = "".join(path.read_text() for path in (ROOT / "engine").rglob("*.py"))
    rows = [line.split("|")[1] for line in _section("When something is wrong").splitlines() if line.startswith("| `")]
    said = [text.split(" …")[0] for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert said
    # The kernel says this one, through the client.
    assert [text for text in said if text not in source and "permission denied" not in text] == []
