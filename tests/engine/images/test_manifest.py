from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput
from engine.images import descriptor as types
from engine.images.descriptor import Descriptor, Platform
from engine.images.manifest import Index, Manifest, parse

DIGEST = "sha256:" + "a" * 64
CONFIG = Descriptor(types.OCI_CONFIG, DIGEST, 2)
BROKEN: dict[str, Any] = {"schemaVersion": 2, "layers": []}
LAYER = Descriptor(types.OCI_LAYER_GZIP, "sha256:" + "b" * 64, 3)


def entry(os: str, architecture: str, variant: str | None = None, digit: str = "c") -> Descriptor:
    return Descriptor(types.OCI_MANIFEST, "sha256:" + digit * 64, 7, Platform(architecture, os, variant))


@pytest.mark.parametrize("media_type", [types.OCI_MANIFEST, types.DOCKER_MANIFEST])
def test_manifest_round_trip(media_type: str) -> None:
    manifest = Manifest(CONFIG, (LAYER,), media_type, {"b": "2", "a": "1"})
    assert parse(manifest.encode(), media_type) == manifest
    assert parse(manifest.encode()) == manifest
    assert parse(manifest.encode(), media_type + "; charset=utf-8") == manifest


def test_manifest_without_a_media_type_is_oci() -> None:
    manifest = parse(json.dumps({"schemaVersion": 2, "config": _json(CONFIG), "layers": []}).encode())
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == types.OCI_MANIFEST


def test_index_selects_the_platform() -> None:
    index = Index(
        (
            entry("windows", "amd64", digit="1"),
            entry("linux", "arm", "v6", "2"),
            entry("linux", "arm", "v7", "3"),
            entry("linux", "arm64", "v8", "4"),
            entry("linux", "amd64", None, "5"),
        )
    )
    assert parse(index.encode(), types.OCI_INDEX) == index
    for text, digit in [
        ("linux/amd64", "5"),
        ("linux/arm64", "4"),
        ("linux/arm/v7", "3"),
        ("linux/arm/v6", "2"),
        ("windows/amd64", "1"),
    ]:
        assert index.select(Platform.parse(text)).digest == "sha256:" + digit * 64
    with pytest.raises(InvalidInput, match="linux/arm64"):
        index.select(Platform.parse("linux/s390x"))


@pytest.mark.parametrize(
    ("value", "media_type", "message"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, None, "schema 1"),
        ({"schemaVersion": 3}, None, "schema version 3"),
        ({"schemaVersion": 2, "config": {}, "layers": [], "manifests": []}, None, "ambiguous"),
        ({"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": []}, types.OCI_MANIFEST, "was sent as"),
        ({"schemaVersion": 2, "layers": []}, None, "config"),
        ({"schemaVersion": 2, "mediaType": "application/x"}, None, "unknown manifest type"),
        ([], None, "malformed"),
        (BROKEN | {"config": {"mediaType": "x", "digest": "sha256:zz", "size": 1}}, None, "digest"),
        (BROKEN | {"config": {"mediaType": "x", "digest": DIGEST, "size": -1}}, None, "negative"),
    ],
)
def test_refused(value: Any, media_type: str | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse(json.dumps(value).encode(), media_type)


def test_too_big_is_refused_unread() -> None:
    with pytest.raises(InvalidInput, match="the most allowed"):
        parse(b" " * (100 << 20))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidInput):
        parse(b'{"schemaVersion":2,"annotations":' + b"[" * 100_000)


KEYS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size"]
JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(JSON)
def test_any_json_parses_or_is_refused(value: Any) -> None:
    with contextlib.suppress(InvalidInput):
        parse(json.dumps(value).encode())


@pytest.mark.parametrize("text", [b"m\xff", b"\xff", b"\xed\xa0\x80"])
def test_what_is_no_utf8_is_refused(text: bytes) -> None:
    whole = Manifest(CONFIG, (LAYER,), types.OCI_MANIFEST, {"note": "NOTE"}).encode()
    for place in (b"NOTE", types.OCI_MANIFEST.encode(), types.OCI_CONFIG.encode(), b"mediaType"):
        assert place in whole
        with contextlib.suppress(InvalidInput):  # a key that nobody reads may be anything
            parse(whole.replace(place, text, 1))
            assert place == b"mediaType"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/x86_64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("armhf", "linux/arm/v7"),
    ],
)
def test_platforms_are_normalised(text: str, shown: str) -> None:
    assert str(Platform.parse(text)) == shown


def _json(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


@pytest.mark.parametrize("text", ["nintendo64", " ", "/", "linux/", "a/b/c/d"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid platform"):
        Platform.parse(text)
