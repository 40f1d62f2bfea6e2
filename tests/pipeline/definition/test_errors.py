"""Every way a file can be wrong, with the very words that its author reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.definition.load import load
from pipeline.definition.problems import DefinitionErrors

CASES = Path(__file__).with_name("errors.txt")


def cases() -> Iterator[tuple[str, str, str]]:
    """Name, file and expected errors of each case."""
    for block in CASES.read_text().split("\n== ")[1:]:
        name, _, rest = block.partition("\n")
        text, _, expected = rest.partition("-->\n")
        yield name, text, expected.strip("\n")


def errors_of(text: str) -> str:
    with pytest.raises(DefinitionErrors) as caught:
        load(text, "p.yaml")
    return "\n".join(line.removeprefix("p.yaml:") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(("text", "expected"), [pytest.param(*case[1:], id=case[0]) for case in cases()])
def test_a_wrong_file_says_all_that_is_wrong(text: str, expected: str) -> None:
    assert errors_of(text) == expected
