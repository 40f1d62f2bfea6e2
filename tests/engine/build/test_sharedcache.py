from __future__ import annotations

import msgspec
import pytest

from engine.build import Notice
from engine.build.sharedcache import extract, read_listing, write_listing
from engine.build.stepcache import Result
from tests.engine.build.conftest import Bench

pytestmark = pytest.mark.kernel
TEXT = 'FROM scratch\nCOPY a /\nENV X=1\nRUN write /b b\nCMD ["x"]\n'


async def test_images_that_bring_nothing_or_nonsense(bench: Bench) -> None:
    bench.write(a="A")
    plain = await bench.build(TEXT, tags=("plain",))
    assert extract(plain.config) == {}
    for nonsense in ("x", [1], [["k", 99, "t"]], [["k", "0", "t"]], {"a": 1}):
        odd = msgspec.structs.replace(plain.config, unknown={"dev.shipway.cache.v1": nonsense})
        assert extract(odd) == {}
    await bench.build(TEXT, cache_from=("plain", "missing"))
    assert [event.text for event in bench.events if isinstance(event, Notice)] == [
        "--cache-from missing: No such image: missing:latest"
    ]


def test_listings() -> None:
    chain, diff = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    results = {"made": Result(chain, diff, "t"), "nothing": Result("", "", "t")}
    assert read_listing(write_listing(results, (diff,))) == (results, (diff,))
    assert read_listing(write_listing(results, ())) == ({"nothing": Result("", "", "t")}, ())
    for nonsense in (b"", b"[]", b'{"diff_ids":["x"],"records":[]}', b'{"diff_ids":[],"records":[],"version":2}'):
        assert read_listing(nonsense) == ({}, ())
