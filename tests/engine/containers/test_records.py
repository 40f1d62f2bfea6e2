from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.containers.records import Records


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_read_and_what_it_replaced_is_gone(tmp_path: Path) -> None:
    records = Records()
    for raw in (b"one", b"two", b"three"):
        records.write(tmp_path, raw)

    assert list(Records().read(tmp_path)) == [b"three"]
    assert names(tmp_path) == ["config.3.json"]


def test_only_what_outlives_a_round_is_made_durable_and_becomes_the_plain_one(tmp_path: Path) -> None:
    records = Records()
    records.write(tmp_path, b"one")
    records.settle()
    assert names(tmp_path) == ["config.1.json"]

    records.settle()
    assert names(tmp_path) == ["config.json"]
    assert not records.unsettled
    assert list(Records().read(tmp_path)) == [b"one"]


def test_a_change_after_that_is_newer_than_the_plain_one(tmp_path: Path) -> None:
    records = Records()
    records.write(tmp_path, b"one")
    records.settle(now=True)
    records.write(tmp_path, b"two")

    assert list(Records().read(tmp_path)) == [b"two", b"one"]


def test_who_comes_after_a_crash_goes_on_with_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"durable")
    (tmp_path / "config.7.json").write_bytes(b"half wri")
    (tmp_path / "config.6.json").write_bytes(b"whole")
    later = Records()

    assert list(later.read(tmp_path)) == [b"half wri", b"whole", b"durable"]
    later.write(tmp_path, b"new")
    later.settle(now=True)
    assert names(tmp_path) == ["config.json"]
    assert list(Records().read(tmp_path)) == [b"new"]


def test_a_write_that_fails_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records()
    records.write(tmp_path, b"one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, raw: len(raw) // 2)
        with pytest.raises(OSError, match="No space left"):
            records.write(tmp_path, b"two")

    assert list(Records().read(tmp_path)) == [b"one"]
    records.write(tmp_path, b"three")
    assert list(Records().read(tmp_path)) == [b"three"]


def test_a_folder_that_goes_in_the_middle_stops_nobody(tmp_path: Path) -> None:
    records = Records()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        records.write(tmp_path / name, b"x")
    (tmp_path / "a" / "config.1.json").unlink()
    (tmp_path / "a").rmdir()

    records.settle(now=True)

    assert names(tmp_path / "b") == ["config.json"]
