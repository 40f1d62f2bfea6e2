"""Tars of every kind, and hostile ones, into a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InvalidInput
from engine.images import tarstream
from engine.images.tarwriter import TarWriter
from engine.images.unpack import Limits, Unpacked, unpack

pytestmark = pytest.mark.kernel  # whiteouts are device nodes and trusted.* attributes: root only

Make = Callable[[TarWriter], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with something beside it that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def outside_is_untouched(root: Path):  # type: ignore[no-untyped-def]
    before = Path("/etc/passwd").read_bytes()
    yield
    assert sorted(os.listdir(root.parent)) == ["outside", "root"]
    assert os.listdir(root.parent / "outside") == ["file"]
    assert (root.parent / "outside/file").read_text() == "untouched"
    assert Path("/etc/passwd").read_bytes() == before


def tar(make: Make) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    make(writer)
    writer.close()
    return out.getvalue()


def put(root: Path, make: Make, **options: object) -> Unpacked:
    return unpack([tar(make)], root, **options)  # type: ignore[arg-type]


def folder(writer: TarWriter, name: bytes, mode: int = 0o755) -> None:
    writer.add(name + b"/", tarstream.DIRECTORY, mode=mode)


def symlink(writer: TarWriter, name: bytes, target: bytes) -> None:
    writer.add(name, tarstream.SYMLINK, mode=0o777, linkname=target)


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax"])
def test_gnu_tar_round_trip(tmp_path: Path, upper: Path, form: str) -> None:
    if form == "ustar":
        (upper / ("long" * 30) / ("n" * 200)).unlink()
        (upper / ("long" * 30)).rmdir()
    made = subprocess.run(
        ["tar", "-C", upper, f"--format={'posix' if form == 'pax' else form}", "--xattrs", "--numeric-owner"]
        + (["--xattrs-include=*"] if form == "pax" else ["--no-xattrs"])
        + ["-cf", "-", "."],
        capture_output=True,
        check=True,
    )  # fmt: skip
    root = tmp_path / "root"
    result = unpack([made.stdout], root)
    assert result.diff_id == "sha256:" + hashlib.sha256(made.stdout).hexdigest()
    exact = form == "pax"
    assert listing(root, nanoseconds=exact, xattrs=exact) == listing(upper, nanoseconds=exact, xattrs=exact)
    # The fixture that guards the surroundings knows only two folders.
    subprocess.run(["rm", "-r", upper], check=True)


def listing(base: Path, *, nanoseconds: bool = True, xattrs: bool = True) -> list[tuple[object, ...]]:
    lines = []
    for here, folders, files in os.walk(os.fsencode(base)):
        for name in [b"", *files] + [link for link in folders if os.path.islink(os.path.join(here, link))]:
            path = os.path.join(here, name) if name else here
            found = os.lstat(path)
            content: object = None
            if stat.S_ISREG(found.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(found.st_mode):
                content = os.readlink(path)
            lines.append(
                (
                    os.path.relpath(path, os.fsencode(base)),
                    oct(found.st_mode),
                    found.st_uid,
                    found.st_gid,
                    found.st_nlink,
                    found.st_rdev,
                    found.st_mtime_ns if nanoseconds else found.st_mtime_ns // 10**9,
                    content,
                    {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
                    if xattrs
                    else None,
                )
            )  # fmt: skip
    return sorted(lines, key=lambda line: line[0])


def test_sparse_file_keeps_its_holes(root: Path) -> None:
    source = root.parent / "outside"
    with open(source / "holes", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    made = subprocess.run(["tar", "-C", source, "--sparse", "-cf", "-", "holes"], capture_output=True, check=True)
    (source / "holes").unlink()
    result = unpack([made.stdout], root)
    assert result.size == (50 << 20) + 3
    found = (root / "holes").stat()
    assert found.st_size == (50 << 20) + 3
    assert found.st_blocks * 512 < 1 << 20


def test_implied_folders_and_absent_links_are_told(root: Path) -> None:
    def make(writer: TarWriter) -> None:
        writer.file(b"a/b/file", b"x")
        writer.add(b"a/link", tarstream.LINK, mode=0o644, linkname=b"usr/bin/below")

    result = put(root, make)
    assert result.implied == [b"a", b"a/b", b""]
    assert [path for _, path in result.absent_links] == [b"a/link"]


def test_later_entries_replace_earlier_ones(root: Path) -> None:
    def make(writer: TarWriter) -> None:
        writer.file(b"one", b"old")
        folder(writer, b"two")
        writer.file(b"two/inner", b"")
        symlink(writer, b"three", b"one")
        writer.file(b"one", b"new")
        writer.file(b"two", b"now a file")
        writer.file(b"three", b"not through the link")
        folder(writer, b"one")
        writer.file(b"one/in", b"")

    put(root, make)
    assert (root / "one/in").is_file()
    assert (root / "two").read_text() == "now a file"
    assert (root / "three").read_text() == "not through the link"


def test_whiteouts(root: Path) -> None:
    def make(writer: TarWriter) -> None:
        writer.file(b"etc/.wh.gone", b"")
        folder(writer, b"opaque")
        writer.file(b"opaque/.wh..wh..opq", b"")
        writer.file(b"opaque/kept", b"")
        writer.file(b"mine", b"kept")
        writer.file(b".wh.mine", b"")
        writer.file(b".wh.replaced", b"")
        folder(writer, b"replaced")
        folder(writer, b"first")
        writer.file(b".wh.first", b"")
        writer.file(b".wh.now", b"")
        writer.file(b"now", b"a file")
        writer.file(b".wh..wh.plnk", b"")
        writer.file(b".wh.implied", b"")
        writer.file(b"implied/file", b"")

    put(root, make)
    assert is_whiteout(root / "etc/gone")
    assert is_opaque(root / "opaque")
    assert (root / "opaque/kept").is_file()
    assert (root / "mine").read_text() == "kept"
    assert is_opaque(root / "replaced")
    assert is_opaque(root / "first")
    assert (root / "now").read_text() == "a file"
    assert is_opaque(root / "implied")
    assert "plnk" not in " ".join(os.listdir(root))


def test_plain_names_without_whiteouts(root: Path) -> None:
    put(root, lambda writer: writer.file(b".wh.name", b"x"), whiteouts=False)
    assert (root / ".wh.name").read_text() == "x"


@pytest.mark.parametrize(
    "name",
    [b"..", b"../outside/file", b"a/../../outside/file", b"/../x", b".wh.", b".wh..", b".wh...", b"a/.wh...",
     b".wh./etc", b".wh.x/y", b".wh.../outside", b"x" * 256, b"a/" * 2000],
)  # fmt: skip
def test_hostile_names_are_refused(root: Path, name: bytes) -> None:
    with pytest.raises(InvalidInput):
        put(root, lambda writer: writer.file(name, b"x"))


def test_absolute_names_are_inside(root: Path) -> None:
    put(root, lambda writer: writer.file(b"/etc/passwd", b"ours"))
    assert (root / "etc/passwd").read_text() == "ours"


@pytest.mark.parametrize("target", [b"/", b"/etc", b"../outside", b"../../../../../etc", b"/proc/self/root/etc"])
def test_links_never_lead_out(root: Path, target: bytes) -> None:
    def make(writer: TarWriter) -> None:
        symlink(writer, b"way", target)
        folder(writer, b"etc")
        folder(writer, b"outside")
        writer.file(b"way/passwd", b"ours")
        writer.file(b"way/file", b"ours")
        writer.file(b"way/.wh.hosts", b"")
        writer.file(b"way/.wh..wh..opq", b"")
        folder(writer, b"way", 0o700)

    try:
        put(root, make)
    except InvalidInput:
        return
    assert (root / "way").is_dir()


def test_a_directory_entry_replaces_a_link(root: Path) -> None:
    """Owners and modes of folders must not be set through links either."""

    def make(writer: TarWriter) -> None:
        folder(writer, b"d")
        writer.add(b"d/", tarstream.DIRECTORY, mode=0o777, uid=1234)
        symlink(writer, b"e", b"/d")
        symlink(writer, b"d", b"../outside")

    put(root, make)
    assert (root.parent / "outside").stat().st_uid == 0
    assert (root / "d").is_symlink()


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../outside/file", b"way/passwd", b"."])
def test_hard_links_never_lead_out(root: Path, target: bytes) -> None:
    def make(writer: TarWriter) -> None:
        symlink(writer, b"way", b"/etc")
        writer.add(b"hard", tarstream.LINK, mode=0o644, linkname=target)

    try:
        result = put(root, make)
    except InvalidInput:
        return
    assert not (root / "hard").exists()
    assert len(result.absent_links) == 1


def test_overlay_marks_cannot_be_smuggled_in(root: Path) -> None:
    def make(writer: TarWriter) -> None:
        writer.add(
            b"d/",
            tarstream.DIRECTORY,
            mode=0o755,
            xattrs={
                "trusted.overlay.redirect": b"/etc",
                "trusted.overlay.opaque": b"y",
                "user.overlay.opaque": b"y",
                "trusted.other": b"x",
                "security.selinux": b"x",
                "user.fine": b"x",
            },
        )
        writer.add(b"dev", tarstream.CHAR, mode=0o600, device=(0, 0))

    put(root, make)
    assert os.listxattr(root / "d") == ["user.fine"]
    assert is_whiteout(root / "dev")


def test_file_capabilities(root: Path) -> None:
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    put(
        root,
        lambda writer: writer.add(b"ping", tarstream.REGULAR, mode=0o755, uid=5, xattrs={"security.capability": value}),
    )
    assert os.getxattr(root / "ping", "security.capability") == value


def test_id_shift(root: Path) -> None:
    def make(writer: TarWriter) -> None:
        writer.add(b"d/", tarstream.DIRECTORY, mode=0o755, uid=1)
        writer.file(b"implied/f", b"")
        symlink(writer, b"l", b"d")

    put(root, make, id_shift=100_000)
    assert (root / "d").stat().st_uid == 100_001
    assert (root / "implied").stat().st_uid == 100_000
    assert (root / "l").lstat().st_gid == 100_000


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(bytes=100_000), "more than 100000 bytes"),
        (Limits(entries=5), "more than 5 entries"),
        (Limits(ratio=10, ratio_floor=1000), "bomb"),
    ],
)
def test_limits(root: Path, limits: Limits, message: str) -> None:
    data = tar(lambda writer: [writer.file(b"f%d" % n, bytes(50_000)) for n in range(10)])  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidInput, match=message):
        unpack(
            [data[at : at + 4096] for at in range(0, len(data), 4096)],
            root,
            limits=limits,
            compressed_size=len(gzip.compress(data)),
        )


def test_a_file_that_only_claims_to_be_huge(root: Path) -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    writer.add(b"f", tarstream.REGULAR, mode=0o644, size=1 << 50)
    writer.flush()
    with pytest.raises(InvalidInput):
        unpack([out.getvalue()], root)


def test_trailing_bytes_count_for_the_digest(root: Path) -> None:
    data = tar(lambda writer: writer.file(b"f", b"x")) + bytes(10 * 512) + b"garbage"
    assert unpack([data], root).diff_id == "sha256:" + hashlib.sha256(data).hexdigest()


def test_hard_links_share_and_links_can_be_linked(root: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        info = tarfile.TarInfo("a")
        info.size = 1
        made.addfile(info, io.BytesIO(b"x"))
        for name, kind, target in [
            ("b", tarfile.LNKTYPE, "a"),
            ("s", tarfile.SYMTYPE, "nowhere"),
            ("t", tarfile.LNKTYPE, "s"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            made.addfile(info)
    unpack([buffer.getvalue()], root)
    assert (root / "a").stat().st_nlink == 2
    assert os.readlink(root / "t") == "nowhere"
