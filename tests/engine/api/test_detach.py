from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.detach import DetachKeys, parse
from engine.errors import InvalidInput


def test_key_names() -> None:
    assert parse("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse("a,ctrl-[,ctrl-@") == b"a\x1b\x00"
    assert parse("") == b""
    for wrong in ("ctrl-", "ctrl-1", "ctrl-A", "alt-x", "ctrl-p,"):
        with pytest.raises(InvalidInput, match="detach keys"):
            parse(wrong)


def test_a_sequence_over_several_reads() -> None:
    keys = DetachKeys()
    assert keys.feed(b"ls\n\x10") == (b"ls\n", False)
    assert keys.feed(b"\x11more") == (b"", True)


def test_a_beginning_that_does_not_go_on_is_passed_on() -> None:
    keys = DetachKeys()
    assert keys.feed(b"\x10x") == (b"\x10x", False)
    assert keys.feed(b"\x10\x10\x11") == (b"\x10", True)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda data: b"\x11" not in data)))
def test_whatever_does_not_detach_arrives_whole(pieces: list[bytes]) -> None:
    keys = DetachKeys()
    passed = b"".join(keys.feed(piece)[0] for piece in pieces)
    assert b"".join(pieces).startswith(passed)
    assert len(b"".join(pieces)) - len(passed) <= 1
