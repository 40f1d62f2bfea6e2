"""Our reader against Python's tarfile and GNU tar as writers, our writer against both as readers."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import InvalidInput
from engine.images import tarstream
from engine.images.tarstream import TarReader
from engine.images.tarwriter import TarWriter

NAMES = [b"short", b"dir/" * 30 + b"end", b"x" * 100, b"x" * 101, b"a/" + b"y" * 180, "né/ü".encode() * 40, b"\xff\xfe"]


def read(data: bytes, step: int = 1 << 20) -> list[tuple[bytes, bytes, bytes]]:
    reader = TarReader(data[at : at + step] for at in range(0, len(data), step))
    found = []
    for entry in reader:
        content = bytearray(entry.size)
        for offset, piece in reader.content():
            content[offset : offset + len(piece)] = piece
        found.append((entry.name, entry.type, bytes(content)))
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 513, 1 << 20])
def test_reads_what_tarfile_writes(form: int, step: int) -> None:
    names = NAMES[:4] if form == tarfile.USTAR_FORMAT else NAMES
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as tar:
        for number, name in enumerate(names):
            if form == tarfile.USTAR_FORMAT and len(name) > 100 and b"/" not in name:
                continue
            info = tarfile.TarInfo(os.fsdecode(name))
            info.size = number * 700
            info.uid = 70_000 if form == tarfile.USTAR_FORMAT else 3_000_000
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    expected = [
        (name, tarstream.REGULAR, bytes([number]) * (number * 700))
        for number, name in enumerate(names)
        if form != tarfile.USTAR_FORMAT or len(name) <= 100 or b"/" in name
    ]
    assert read(buffer.getvalue(), step) == expected


def test_nanoseconds_ids_and_xattrs_of_pax() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.uid = info.gid = 2**31
        info.pax_headers = {"mtime": "1234567890.123456789", "SCHILY.xattr.user.x": "v=\n1"}
        tar.addfile(info)
    (entry,) = TarReader([buffer.getvalue()])
    assert (entry.uid, entry.gid) == (2**31, 2**31)
    assert entry.mtime_ns == 1234567890123456789
    assert entry.xattrs == {"user.x": b"v=\n1"}


@pytest.mark.parametrize(
    "version", ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, version: str) -> None:
    content = bytearray(3 << 20)
    with open(tmp_path / "holes", "wb") as file:
        for number in range(40):
            at = number * 70_000 // 4096 * 4096
            file.seek(at)
            file.write(b"x%d" % number)
            content[at : at + len(b"x%d" % number)] = b"x%d" % number
        file.truncate(len(content))
    options = [version] if version == "--format=gnu" else ["--format=pax", version]
    made = subprocess.run(
        ["tar", "-C", tmp_path, "--sparse", *options, "-cf", "-", "holes"], capture_output=True, check=True
    )
    assert len(made.stdout) < 1 << 20
    assert read(made.stdout) == [(b"holes", tarstream.REGULAR, bytes(content))]


def written() -> bytes:
    out = io.BytesIO()
    tar = TarWriter(out.write)
    for number, name in enumerate(NAMES):
        tar.add(name, tarstream.REGULAR, mode=0o4751, uid=number, gid=2**31, size=number * 999, mtime=2**33)
        tar.data(bytes([number]) * (number * 999))
        tar.pad(number * 999)
    tar.add(b"link", tarstream.SYMLINK, mode=0o777, linkname=b"to/" * 60)
    tar.add(b"hard", tarstream.LINK, mode=0o644, linkname=b"short")
    tar.add(b"null", tarstream.CHAR, mode=0o666, device=(1, 3), xattrs={"user.a": b"\0\xff"})
    tar.close()
    return out.getvalue()


def test_tarfile_reads_what_we_write() -> None:
    data = written()
    assert data == written()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert [os.fsencode(member.name) for member in members] == [*NAMES, b"link", b"hard", b"null"]
    assert members[3].gid == 2**31
    assert members[3].mode == 0o4751
    assert members[3].size == 3 * 999
    assert members[-3].linkname.rstrip("/") == ("to/" * 60).rstrip("/")
    assert (members[-1].devmajor, members[-1].devminor) == (1, 3)


def test_gnu_tar_reads_what_we_write() -> None:
    listed = subprocess.run(["tar", "-tf", "-"], input=written(), capture_output=True, check=True)
    assert listed.stderr == b""
    assert len(listed.stdout.splitlines()) == len(NAMES) + 3


def test_we_read_what_we_write() -> None:
    entries = list(TarReader([written()]))
    assert [entry.name for entry in entries] == [*NAMES, b"link", b"hard", b"null"]
    assert entries[-3].linkname == b"to/" * 60
    assert entries[-1].xattrs == {"user.a": b"\0\xff"}
    assert entries[0].mtime_ns == 2**33 * 10**9


def header(**changes: bytes) -> bytes:
    """A header for an empty file with some fields overwritten, and the checksum right."""
    raw = io.BytesIO()
    tar = TarWriter(raw.write)
    tar.file(b"f", b"")
    tar.flush()
    data = bytearray(raw.getvalue())
    fields = {"size": 124, "type": 156, "mtime": 136, "name": 0}
    for field, value in changes.items():
        data[fields[field] : fields[field] + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 512,
        b"x" * 100,
        header(size=b"00000001000\0"),  # and then nothing
        header(size=b"99999999999\0"),
        header(size=b"\xff" * 12),  # -1
        header(type=b"x", size=b"77777777777\0"),  # a pax header of 8 GiB
        header(type=b"L", size=b"77777777777\0"),
        header(type=b"x", size=b"00000000005\0") + b"9 a=b".ljust(512, b"\0"),
        header(type=b"x", size=b"00000000006\0") + b"6 ab=\n".ljust(512, b"\0"),
        header(type=b"L", size=b"00000000003\0") + b"abc".ljust(512, b"\0") + bytes(1024),
        header() + bytes(512) + header(),
        header() + bytes(1023),
        (header(type=b"x", size=b"00000000006\0") + b"6 a=b\n".ljust(512, b"\0")) * 100 + header(),
        header(type=b"g", size=b"00000000026\0") + b"22 GNU.sparse.map=0,0\n".ljust(512, b"\0") + header(),
    ],
)
def test_damaged(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="malformed tar"):
        read(data)


def test_empty_and_unended_archives() -> None:
    assert read(b"") == []
    assert read(bytes(1024)) == []
    assert read(header()) == [(b"f", tarstream.REGULAR, b"")]
    assert read(header() + bytes(512)) == [(b"f", tarstream.REGULAR, b"")]
    # docker's own, of `docker build -f -`, ends where the last file does.
    for padding in (0, 1, 509):
        assert read(header(size=b"00000000003\0") + b"abc" + bytes(padding)) == [(b"f", tarstream.REGULAR, b"abc")]


@given(st.binary(max_size=2048), st.integers(0, 4000))
@example(b"\xff" * 600, 0)
def test_any_damage_is_one_clear_error(noise: bytes, at: int) -> None:
    data = bytearray(DAMAGEABLE)
    data[at : at + len(noise)] = noise
    with contextlib.suppress(InvalidInput):
        read(bytes(data), 700)


DAMAGEABLE = written()


@given(st.dictionaries(
    st.sampled_from(["size", "type", "mtime", "name"]), st.binary(min_size=1, max_size=12)))  # fmt: skip
def test_any_header_is_read_or_refused(fields: dict[str, bytes]) -> None:
    fields = {key: value[:1] if key == "type" else value for key, value in fields.items()}
    with contextlib.suppress(InvalidInput):
        for entry in TarReader([header(**fields) + bytes(4096)]):
            assert entry.size >= 0
