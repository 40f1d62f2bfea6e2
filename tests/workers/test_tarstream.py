"""A folder streamed as a tar archive."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from workers.tarstream import stream


def nothing() -> None: ...


def unchanged(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith("/.git") else member


def test_the_folder_comes_out_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("x")
    (source / "empty").touch()
    (source / "block").write_bytes(bytes(range(256)) * 2)
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    (source / "deep" / "er" / ("ö" * 120)).write_text("long")
    (source / os.fsdecode(b"\xff")).write_text("no UTF-8")
    (source / "link").symlink_to("script")
    (source / "twin").hardlink_to(source / "script")
    os.mkfifo(source / "pipe")
    data = io.BytesIO(b"".join(stream(source, "srv/app", unchanged, nothing)))
    with tarfile.open(fileobj=data) as tar:
        tar.extractall(tmp_path / "out", filter="fully_trusted")  # noqa: S202
    out = tmp_path / "out" / "srv" / "app"
    assert sorted(os.listdir(out)) == sorted(set(os.listdir(source)) - {".git"})
    assert (out / "block").read_bytes() == (source / "block").read_bytes()
    assert (out / "script").stat().st_mode & 0o777 == 0o755
    assert (out / "deep" / "er" / ("ö" * 120)).read_text() == "long"
    assert (out / "twin").stat().st_ino == (out / "script").stat().st_ino
    assert os.readlink(out / "link") == "script"
    assert (out / "pipe").is_fifo()


@pytest.mark.parametrize("now", [b"", b"y" * 5000])
def test_a_file_that_changes_meanwhile_spoils_no_other(tmp_path: Path, now: bytes) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"x" * 1000)
    (source / "b").write_text("b")
    archive = b""
    for piece in stream(source, "s", unchanged, nothing):
        archive += piece
        if piece.startswith(b"s/a\0"):
            (source / "a").write_bytes(now)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert [(member.name, member.size) for member in tar] == [("s", 0), ("s/a", 1000), ("s/b", 1)]


def test_a_large_folder_is_never_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in stream(tmp_path, "s", unchanged, nothing))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 64 << 20
    assert peak < 4 << 20
