from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.containers.changes import ADDED, CHANGED, DELETED, changes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are device nodes")


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for folder in ("etc", "var/lib", "opt/old"):
        (lower / folder).mkdir(parents=True)
    for name in ("etc/conf", "etc/other", "var/lib/db", "opt/old/x"):
        (lower / name).write_text("image")
    upper.mkdir()
    return upper, lower


def test_added_changed_and_deleted(layers: tuple[Path, Path]) -> None:
    upper, lower = layers
    (upper / "etc").mkdir()
    (upper / "etc/conf").write_text("mine")
    (upper / "new/deep").mkdir(parents=True)
    (upper / "new/deep/x").symlink_to("nowhere")
    (upper / "opt").mkdir()
    os.mknod(upper / "opt/old", 0o020000, os.makedev(0, 0))
    assert changes(upper, [lower]) == [
        {"Path": "/etc", "Kind": CHANGED},
        {"Path": "/etc/conf", "Kind": CHANGED},
        {"Path": "/new", "Kind": ADDED},
        {"Path": "/new/deep", "Kind": ADDED},
        {"Path": "/new/deep/x", "Kind": ADDED},
        {"Path": "/opt", "Kind": CHANGED},
        {"Path": "/opt/old", "Kind": DELETED},
    ]


def test_what_every_start_makes_is_not_told(layers: tuple[Path, Path]) -> None:
    upper, lower = layers
    for folder in ("dev", "proc", "sys", "etc"):
        (upper / folder).mkdir()
    for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
        (upper / name).touch()
    assert changes(upper, [lower]) == []


def test_a_replaced_folder_hides_what_was_in_it(layers: tuple[Path, Path]) -> None:
    upper, lower = layers
    (upper / "opt/old").mkdir(parents=True)
    os.setxattr(upper / "opt/old", "trusted.overlay.opaque", b"y")
    (upper / "opt/old/y").touch()
    assert {"Path": "/opt/old/x", "Kind": DELETED} in changes(upper, [lower])
