from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput
from engine.images.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        (f"localhost:7750/web@{DIGEST}", f"localhost:7750/web@{DIGEST}", f"localhost:7750/web@{DIGEST}"),
        (f"a/b:c@{DIGEST}", f"docker.io/a/b:c@{DIGEST}", f"a/b:c@{DIGEST}"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("Host/x", "Host/x:latest", "Host/x:latest"),
        ("a__b/c---d.e", "docker.io/a__b/c---d.e:latest", "a__b/c---d.e:latest"),
    ],
)
def test_parse(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert Reference.parse(canonical) == reference
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        *["", "Busybox", "a//b", "/a", "a/", "a:", "a:-x", "a@b", "a@sha256:12", "a..b", "a___b", "a b", "-a"],
        *["a" * 64, "x/" * 150 + "y", "a:" + "t" * 129, "é", "http://a/b", "a\n"],
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Reference.parse(text)


def test_repository_takes_no_tag() -> None:
    assert Reference.parse_repository("busybox").tag is None
    with pytest.raises(InvalidInput):
        Reference.parse_repository("busybox:1")


@given(st.text(alphabet="aB0.:/@_-[] \n\x00é", max_size=40))
def test_any_text_parses_or_is_refused_and_survives_a_round_trip(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidInput:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert ".." not in reference.path.split("/")
