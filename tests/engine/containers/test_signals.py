from __future__ import annotations

import pytest

from engine.containers.signals import number
from engine.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigkill", 9),
        ("9", 9),
        (" HUP ", 1),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("64", 64),
        ("RTMAX", 64),
    ],
)
def test_by_name_and_number(text: str, expected: int) -> None:
    assert number(text) == expected


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "NOPE", "RTMIN+40", "RTMIN-1", "9.0", "SIG", "SIG9"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid signal"):
        number(text)
