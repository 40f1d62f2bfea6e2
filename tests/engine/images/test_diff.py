"""Folders → layer tars: everything kept, always the same bytes, nothing read through a link."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.images.diff import DiffOptions, diff, unshift
from engine.images.unpack import unpack

pytestmark = pytest.mark.kernel  # whiteouts are device nodes and trusted.* attributes: root only


def tar_of(folder: Path, **options: object) -> bytes:
    out = io.BytesIO()
    diff(folder, out.write, DiffOptions(**options))  # type: ignore[arg-type]
    return out.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def listing(root: Path) -> list[tuple[object, ...]]:
    """Everything that a layer keeps of a tree."""
    found: list[tuple[object, ...]] = []
    inodes: dict[int, str] = {}
    for path in sorted(root.rglob("*"), key=os.fsencode):
        about = path.lstat()
        name = os.fsencode(path.relative_to(root))
        kind = stat.S_IFMT(about.st_mode)
        content = os.readlink(path) if kind == stat.S_IFLNK else path.read_bytes() if kind == stat.S_IFREG else b""
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        twin = inodes.setdefault(about.st_ino, str(name)) if kind != stat.S_IFDIR else ""
        found.append(
            (
                *(name, kind, about.st_mode, about.st_uid, about.st_gid, about.st_rdev),
                *(content, xattrs, int(about.st_mtime), twin),
            )
        )
    return found


def test_there_and_back(upper: Path, tmp_path: Path) -> None:
    os.mknod(upper / "etc/gone", stat.S_IFCHR, 0)
    os.setxattr(upper / "empty", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "device", stat.S_IFBLK | 0o640, os.makedev(7, 300))
    os.chown(upper / "bin/link", 3_000_000, 2_500_000, follow_symlinks=False)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(upper / "socket"))
    data = tar_of(upper)
    back = tmp_path / "back"
    back.mkdir()
    result = unpack([data], back)
    assert result.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    (upper / "socket").unlink()

    def without_marks(root: Path) -> list[tuple[object, ...]]:
        return [line if line[5] or line[1] != stat.S_IFCHR else line[:2] for line in listing(root)]

    assert without_marks(back) == without_marks(upper)


def test_the_same_content_gives_the_same_bytes(upper: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(upper), str(tmp_path / "copy")], check=True)
    for name in sorted(os.listdir(tmp_path / "copy" / "etc"), reverse=True):  # another order on disk
        os.rename(tmp_path / "copy/etc" / name, tmp_path / "copy/x")
        os.rename(tmp_path / "copy/x", tmp_path / "copy/etc" / name)
    for folder in ("", "etc"):
        os.utime(
            tmp_path / "copy" / folder, ns=((upper / folder).stat().st_atime_ns, (upper / folder).stat().st_mtime_ns)
        )
    assert tar_of(tmp_path / "copy") == tar_of(upper)


def test_times_are_clamped(upper: Path) -> None:
    found = members(tar_of(upper, clamp=1_500_000_000))
    assert {member.mtime for member in found.values()} == {1_000_000_000, 1_500_000_000}
    assert found["etc/passwd"].mtime == 1_000_000_000


def test_whiteouts_and_opaque_folders(tmp_path: Path) -> None:
    folder = tmp_path / "upper"
    (folder / "dir").mkdir(parents=True)
    os.mknod(folder / "gone", stat.S_IFCHR, 0)
    os.setxattr(folder / "dir", "trusted.overlay.opaque", b"y")
    (folder / ".wh.forged").write_text("a file of that name would come back as a whiteout")
    assert sorted(members(tar_of(folder))) == [".wh.gone", "dir", "dir/.wh..wh..opq"]
    os.setxattr(folder, "user.overlay.opaque", b"y")
    assert ".wh..wh..opq" in members(tar_of(folder))
    plain = members(tar_of(folder, overlay=False))
    assert plain["gone"].type == tarfile.CHRTYPE
    assert ".wh.forged" in plain


def test_an_export_has_its_root_and_leaves_things_out(upper: Path) -> None:
    found = members(tar_of(upper, overlay=False, root_entry=True, exclude=frozenset({b"etc", b"bin"})))
    assert "." in found
    assert not any(name.startswith(("etc", "bin")) for name in found)


def test_ids_of_a_user_namespace(tmp_path: Path) -> None:
    folder = tmp_path / "upper"
    folder.mkdir()
    for name, uid in (("root", 100_000), ("user", 101_000), ("stranger", 42_000_000), ("host", 0)):
        (folder / name).touch()
        os.chown(folder / name, uid, uid)
    found = members(tar_of(folder, id_shift=100_000))
    assert {name: member.uid for name, member in found.items()} == {
        "root": 0,
        "user": 1000,
        "stranger": 65534,
        "host": 0,
    }
    assert unshift(7, 0) == 7


def test_capabilities_of_a_user_namespace(tmp_path: Path) -> None:
    folder = tmp_path / "upper"
    folder.mkdir()
    (folder / "ping").write_bytes(b"#!")
    version_3 = struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, 100_000)
    os.setxattr(folder / "ping", "security.capability", version_3)
    pax = members(tar_of(folder, id_shift=100_000))["ping"].pax_headers
    value = pax["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")
    assert value == struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


@pytest.mark.parametrize("key", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_folders_that_only_overlayfs_understands_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "upper/dir").mkdir(parents=True)
    os.setxattr(tmp_path / "upper/dir", key, b"/elsewhere")
    with pytest.raises(InvalidInput, match="redirect_dir=off,metacopy=off"):
        tar_of(tmp_path / "upper")


def test_sparse_files_keep_their_content(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    with open(tmp_path / "upper/sparse", "wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"data")
    data = tar_of(tmp_path / "upper")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        content = tar.extractfile("sparse")
        assert content is not None
        assert content.read() == (tmp_path / "upper/sparse").read_bytes()


def test_a_file_that_changes_its_size_while_it_is_read(tmp_path: Path) -> None:
    """The header has been written: what follows must have that length, or the tar is broken from there on."""
    (tmp_path / "upper").mkdir()
    shrinking, growing = tmp_path / "upper/a", tmp_path / "upper/b"
    shrinking.write_bytes(b"x" * (3 << 20))
    growing.write_bytes(b"y" * (3 << 20))
    out = bytearray()

    def write(data: bytes | bytearray | memoryview) -> None:
        if len(out) < 2048:
            os.truncate(shrinking, 1 << 20)
            with growing.open("ab") as file:
                file.write(b"more")
        out.extend(data)

    diff(tmp_path / "upper", write, DiffOptions())
    found = members(bytes(out))
    assert found["a"].size == 3 << 20
    assert list(found) == ["a", "b"]
