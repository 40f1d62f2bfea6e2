"""ADD of archives that are not whole."""

from __future__ import annotations

import gzip
import lzma
import random

import pytest

from engine.build import StepError
from tests.engine.build.conftest import Bench
from tests.engine.tars import tar_of

pytestmark = pytest.mark.kernel


TAR = tar_of({name: random.Random(name).randbytes(1000) for name in ("one", "two")})
"""Two files of two blocks each."""
GZIP = gzip.compress(TAR)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (TAR[:2500], "malformed tar: it ends in the middle of an entry"),
        (TAR[:1536] + b"x" + TAR[1537:], "malformed tar: a header's checksum is wrong"),
        (TAR[:3072] + bytes(1023), "malformed tar: a block of zeros is not followed by a second one"),
        (GZIP[:-6] + bytes(6), "damaged gzip data: .*"),
        (lzma.compress(TAR)[:-40], "damaged xz data: .*"),
    ],
)
async def test_what_begins_as_an_archive_must_be_whole(bench: Bench, content: bytes, told: str) -> None:
    bench.write(file="")
    (bench.context / "file").write_bytes(content)
    with pytest.raises(StepError, match=f"^Dockerfile:2: ADD: {told}: file$"):
        await bench.build("FROM scratch\nADD file /to/")


@pytest.mark.parametrize("content", [b"x" + TAR, TAR[:500], GZIP[:20], gzip.compress(b"text"), bytes(1024)])
async def test_what_does_not_is_copied_as_it_is(bench: Bench, content: bytes) -> None:
    bench.write(file="")
    (bench.context / "file").write_bytes(content)
    image = await bench.build("FROM scratch\nADD file /to/")
    (layer,) = bench.images.lowerdirs(image.id)
    assert (layer / "to/file").read_bytes() == content
