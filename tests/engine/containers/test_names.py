from __future__ import annotations

import re

import pytest

from engine.containers.names import new_id, random_name, validate
from engine.errors import InvalidInput


@pytest.mark.parametrize("name", ["web", "/web", "a1", "A_b.c-d", "x" * 253])
def test_good_names(name: str) -> None:
    assert validate(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a",
        "../x",
        "../../x",
        "a/b",
        "//x",
        "-rf",
        ".hidden",
        "a b",
        "a\n",
        "a\0b",
        "ä1",
        "a;b",
        "x" * 254,
        "١٢",
    ],
)
def test_names_that_could_be_weapons(name: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid container name"):
        validate(name)


def test_ids_are_hexadecimal_and_never_look_like_a_number() -> None:
    for _ in range(200):
        made = new_id()
        assert re.fullmatch(r"[0-9a-f]{64}", made)
        assert not made[:12].isdecimal()


class Everything:
    def __contains__(self, _: object) -> bool:
        return True


def test_there_is_always_a_random_name() -> None:
    assert validate(random_name(()))
    assert validate(random_name(Everything())).startswith("container_")
