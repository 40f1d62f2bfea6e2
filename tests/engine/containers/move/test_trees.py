"""What is sent in several passes is in the end what is there, to the last attribute."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from engine.containers.move.packing import LIMITS, pack, remove
from engine.containers.move.trees import Tree
from engine.errors import InvalidInput
from engine.images.unpack import unpack
from tests import needs
from tests.patience import wait_for

SHIFT, OTHER_SHIFT = 100_000, 300_000


@pytest.fixture(autouse=True)
def _root() -> None:
    needs.root()


def send(tree: Tree, target: Path, *, quiet: bool = False, shift: int = 0) -> int:
    """One pass; how many items it had."""
    found = tree.changes(quiet=quiet)
    tar: list[bytes] = []
    pack(tree, found.items, lambda data: tar.append(bytes(data)))
    remove(target, found.gone)
    unpack(tar, target, whiteouts=tree.overlay, id_shift=shift, limits=LIMITS)
    return len(found.items)


def seen(folder: Path, shift: int = 0) -> dict[str, object]:
    """Everything that a program could see of a tree."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in sorted((folder, *folder.rglob("*"))):
        status = path.lstat()
        name = str(path.relative_to(folder))
        content: object = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = (path.read_bytes(), inodes.setdefault(status.st_ino, name))
        attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in _attributes(path)}
        owner = (status.st_uid - shift, status.st_gid - shift)
        found[name] = (status.st_mode, owner, status.st_mtime_ns, status.st_rdev, content, attributes)
    return found


def _attributes(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def fill(folder: Path) -> None:
    (folder / "d/e").mkdir(parents=True)
    (folder / "d/file").write_bytes(b"x" * 100_000)
    (folder / "d/e/mapped").write_bytes(bytes(4096))
    (folder / "suid").write_text("s")
    (folder / "suid").chmod(0o4755)
    (folder / "link").symlink_to("d/file")
    (folder / "one").write_text("1")
    (folder / "two").hardlink_to(folder / "one")
    os.mkfifo(folder / "pipe", 0o640)
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (folder / os.fsdecode(b"not utf8 \xff")).write_text("n")
    (folder / ("long" * 60)).write_text("l")
    os.setxattr(folder / "one", "user.note", b"\0\xff")
    os.utime(folder / "d/file", ns=(1, 1_234_567_890_123_456_789))


def test_passes_make_two_trees_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    fill(source)
    tree = Tree(source)
    send(tree, target)
    assert seen(target) == seen(source)

    # Everything that can happen to a file, in one go.
    (source / "d/file").write_text("shorter")
    (source / "one").write_text("both names show this")
    (source / "link").unlink()
    (source / "link").mkdir()
    (source / "link/in").write_text("a folder now")
    (source / "suid").unlink()
    (source / "d/e").rename(source / "moved")
    (source / "null").chmod(0o600)
    (source / "three").hardlink_to(source / "two")
    (source / "d").chmod(0o700)
    os.chown(source / "pipe", 5, 6)
    os.setxattr(source / ("long" * 60), "user.new", b"1")
    send(tree, target)
    assert seen(target) == seen(source)

    # The folder is another one, of the same name; one of the names of a file goes.
    (source / "moved").rename(source / "aside")
    (source / "moved").mkdir()
    (source / "one").unlink()
    send(tree, target, quiet=True)
    assert seen(target) == seen(source)


def test_what_is_old_is_not_sent_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    fill(source)
    # What is fresher than the file system's clock can tell apart is sent twice.
    newest = max(path.lstat().st_ctime_ns for path in source.rglob("*"))
    wait_for(lambda: time.time_ns() - newest > 30_000_000, "old files")
    tree = Tree(source)
    assert send(tree, target) > 10
    assert send(tree, target) == 0
    (source / "suid").write_text("changed")
    # The file, and its folder's times.
    assert send(tree, target) == 2
    assert seen(target) == seen(source)


def test_a_containers_files_keep_their_marks_and_change_their_ids(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, shift in ((source, SHIFT), (target, OTHER_SHIFT)):
        folder.mkdir()
        os.chown(folder, shift, shift)
    (source / "etc").mkdir()
    os.chown(source / "etc", SHIFT, SHIFT)
    os.setxattr(source / "etc", "trusted.overlay.opaque", b"y")
    os.mknod(source / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (source / "etc/owned").write_text("x")
    os.chown(source / "etc/owned", SHIFT + 1000, SHIFT + 1001)
    tree = Tree(source, overlay=True, shift=SHIFT)
    send(tree, target, shift=OTHER_SHIFT)
    found, wanted = seen(target, OTHER_SHIFT), seen(source, SHIFT)
    # Whom a whiteout belongs to, and since when, is nobody's business.
    assert found.pop("gone")[3] == 0  # type: ignore[index]
    assert wanted.pop("gone")
    assert found == wanted

    # What had been hidden comes back; what was there is hidden.
    (source / "gone").unlink()
    (source / "gone").write_text("here again")
    (source / "etc/owned").unlink()
    os.mknod(source / "etc/owned", stat.S_IFCHR, os.makedev(0, 0))
    send(tree, target, shift=OTHER_SHIFT)
    assert (target / "gone").read_text() == "here again"
    assert (target / "etc/owned").lstat().st_rdev == 0
    assert stat.S_ISCHR((target / "etc/owned").lstat().st_mode)


@pytest.mark.parametrize("path", [b"../out", b"/out", b"a/../../out", b"", b"a//out", b"./out"])
def test_nothing_outside_is_removed(tmp_path: Path, path: bytes) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "out").write_text("stays")
    with pytest.raises(InvalidInput):
        remove(tmp_path / "in", [path])
    assert (tmp_path / "out").exists()


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("stays")
    (tmp_path / "in/link").symlink_to(tmp_path)
    with pytest.raises(Exception, match="can't change"):
        remove(tmp_path / "in", [b"link/out"])
    assert (tmp_path / "out").exists()
