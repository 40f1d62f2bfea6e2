"""Reads tar archives from a stream: ustar, GNU and pax, in bounded memory.

Names stay bytes. Nothing here touches the file system; what a name may mean is for the one who unpacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.errors import InvalidInput

BLOCK = 512
MAX_PAX_BYTES = 1 << 20
MAX_NAME_BYTES = 1 << 16
MAX_SPARSE_PARTS = 1 << 17
MAX_HEADERS = 8  # of the kind that describe the entry after them
MAX_GLOBALS = 256

REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_CONTIGUOUS, _GNU_SPARSE, _GNU_NAME, _GNU_LINK = b"7", b"S", b"L", b"K"
_PAX, _PAX_GLOBAL, _PAX_SOLARIS = b"x", b"g", b"X"
_XATTR, _SPARSE = b"SCHILY.xattr.", b"GNU.sparse."
_ZERO = bytes(BLOCK)
_SPACES = 8 * 0x20


class Entry:
    """One member. `size` counts the bytes that its content has once unpacked."""

    __slots__ = (
        "devmajor",
        "devminor",
        "gid",
        "linkname",
        "mode",
        "mtime_ns",
        "name",
        "size",
        "sparse",
        "type",
        "uid",
        "xattrs",
    )

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: bytes
    devmajor: int
    devminor: int
    xattrs: dict[str, bytes]
    sparse: list[tuple[int, int]] | None


class TarReader:
    """Iterates over the entries of a tar that comes in `chunks`.

    Between two steps of the iteration `content()` gives the current entry's bytes; what is not read is
    skipped.
    Raises InvalidInput for whatever is no tar.
    """

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = iter(chunks)
        self._chunk: memoryview = memoryview(b"")
        self._at = 0
        self._left = 0  # of the current entry's stored bytes
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}
        self._current: Entry | None = None
        self._ended = False

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def drain(self) -> None:
        """Reads to the end of the stream, so that whoever hashes it has seen all of it."""
        self._chunk, self._at = memoryview(b""), 0
        for _ in self._chunks:
            pass

    def content(self) -> Iterator[tuple[int, memoryview]]:
        """The current entry's content as (offset in the file, bytes); holes of sparse files are left out."""
        entry = self._current
        if entry is None or not self._left:
            return
        if entry.sparse is None:
            offset = 0
            while self._left:
                piece = self._piece(self._left)
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)
            return
        for start, length in entry.sparse:
            offset, end = start, start + length
            while offset < end:
                if not self._left:
                    raise InvalidInput(f"malformed tar: sparse file {_show(entry.name)} is cut short")
                piece = self._piece(min(self._left, end - offset))
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)

    # -- the byte stream

    def _fill(self) -> bool:
        while self._at >= len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk, self._at = memoryview(chunk), 0
        return True

    def _piece(self, most: int) -> memoryview:
        """Between one and `most` bytes, as they come."""
        if not self._fill():
            raise InvalidInput("malformed tar: it ends in the middle of an entry")
        at = self._at
        piece = self._chunk[at : at + most]
        self._at = at + len(piece)
        return piece

    def _take(self, count: int) -> bytes:
        """Exactly `count` bytes, or b"" at the very end of the stream."""
        at = self._at
        if len(self._chunk) - at >= count:
            self._at = at + count
            return bytes(self._chunk[at : at + count])
        if not self._fill():
            return b""
        parts = []
        while count:
            piece = self._piece(count)
            parts.append(bytes(piece))
            count -= len(piece)
        return b"".join(parts)

    def _block(self) -> bytes:
        """What there is up to the end of the stream, a block at most."""
        found = b""
        while len(found) < BLOCK and self._fill():
            found += self._piece(BLOCK - len(found))
        return found

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._piece(count))

    def _skip_padding(self) -> None:
        """What fills the last block. `docker build -f -` leaves it out where an archive ends; so Go reads it."""
        count = self._padding
        while count and self._fill():
            count -= len(self._piece(count))

    def _body(self, size: int, limit: int, what: str) -> bytes:
        """The data of a header that is not an entry of its own."""
        if size > limit:
            raise InvalidInput(f"malformed tar: {what} of {size} bytes, the most allowed is {limit}")
        data = self._take(size) if size else b""
        if len(data) != size:
            raise InvalidInput("malformed tar: it ends in the middle of a header")
        self._skip(-size % BLOCK)
        return data

    # -- headers

    def _next(self) -> Entry | None:
        if self._ended:
            return None
        self._skip(self._left)
        self._skip_padding()
        self._left = self._padding = 0
        self._current = None
        pax: dict[bytes, bytes] = dict(self._globals) if self._globals else {}
        name: bytes | None = None
        link: bytes | None = None
        for _ in range(MAX_HEADERS):
            header = self._take(BLOCK)
            # Two zero blocks end an archive; like Go we take one at the end of the stream, and that end too.
            if not header or header == _ZERO:
                if header and self._block() not in (b"", _ZERO):
                    raise InvalidInput("malformed tar: a block of zeros is not followed by a second one")
                if name is not None or link is not None or pax.keys() - self._globals.keys():
                    raise InvalidInput("malformed tar: it ends after an extended header")
                self._ended = True
                return None
            _check(header)
            kind = header[156:157]
            size = _number(header[124:136])
            if kind in (_PAX, _PAX_SOLARIS):
                _pax_records(self._body(size, MAX_PAX_BYTES, "a pax header"), pax)
            elif kind == _PAX_GLOBAL:
                _pax_records(self._body(size, MAX_PAX_BYTES, "a pax header"), self._globals)
                if len(self._globals) > MAX_GLOBALS:
                    raise InvalidInput("malformed tar: too many global pax records")
                if any(key.startswith(_SPARSE) for key in self._globals):
                    raise InvalidInput("malformed tar: a sparse file's table among the global pax records")
                pax = {**self._globals, **pax}
            elif kind == _GNU_NAME:
                name = self._body(size, MAX_NAME_BYTES, "a name").partition(b"\0")[0]
            elif kind == _GNU_LINK:
                link = self._body(size, MAX_NAME_BYTES, "a link's target").partition(b"\0")[0]
            else:
                return self._entry(header, kind, size, pax, name, link)
        raise InvalidInput("malformed tar: too many extended headers before an entry")

    def _entry(
        self,
        header: bytes,
        kind: bytes,
        size: int,
        pax: dict[bytes, bytes],
        name: bytes | None,
        link: bytes | None,
    ) -> Entry:
        entry = Entry()
        if name is None:
            name = header[:100].partition(b"\0")[0]
            if header[257:263] == b"ustar\0" and header[345]:
                name = header[345:500].partition(b"\0")[0] + b"/" + name
        entry.name = name
        entry.linkname = header[157:257].partition(b"\0")[0] if link is None else link
        entry.mode = _number(header[100:108]) & 0o7777
        entry.uid = _number(header[108:116])
        entry.gid = _number(header[116:124])
        entry.mtime_ns = _number(header[136:148]) * 1_000_000_000
        entry.devmajor = entry.devminor = 0
        if kind in (CHAR, BLOCK_DEVICE):
            entry.devmajor, entry.devminor = _number(header[329:337]), _number(header[337:345])
        entry.xattrs = {}
        entry.sparse = None
        if pax:
            size = _apply_pax(entry, pax, size)
        if kind in (b"\0", _CONTIGUOUS, _GNU_SPARSE):
            # Before ustar a directory was a file whose name ends with a slash.
            kind = DIRECTORY if kind == b"\0" and entry.name.endswith(b"/") else REGULAR
        entry.type = kind
        if kind in (LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO):
            size = 0  # some writers give a link its target's size, and no data
        elif size < 0:
            raise InvalidInput(f"malformed tar: {_show(entry.name)} has a negative size")
        entry.size = size
        self._current = entry
        self._left = size
        self._padding = -size % BLOCK
        if kind == REGULAR:
            if header[156:157] == _GNU_SPARSE:
                self._gnu_sparse(entry, header)
            elif pax and any(key.startswith(_SPARSE) for key in pax):
                self._pax_sparse(entry, pax)
        return entry

    def _gnu_sparse(self, entry: Entry, header: bytes) -> None:
        parts: list[tuple[int, int]] = []
        _sparse_table(header[386:482], parts)
        entry.size = _number(header[483:495])
        more = header[482]
        while more:
            block = self._take(BLOCK)
            if len(block) != BLOCK or len(parts) > MAX_SPARSE_PARTS:
                raise InvalidInput("malformed tar: a sparse file's table has no end")
            _sparse_table(block[:504], parts)
            more = block[504]
        _check_sparse(entry, parts)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        entry.size = _decimal(pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size", b"0")))
        if pax.get(b"GNU.sparse.major") == b"1":
            parts = self._sparse_1_0()
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(number) for number in pax[b"GNU.sparse.map"].split(b",") if number]
            parts = list(zip(numbers[::2], numbers[1::2], strict=False))
        else:
            raise InvalidInput("malformed tar: a sparse file of an unknown format")
        _check_sparse(entry, parts)

    def _sparse_1_0(self) -> list[tuple[int, int]]:
        """Decimal lines before the data, padded to a block: a count, then offsets and lengths."""
        numbers: list[int] = []
        wanted, rest = 1, b""
        while len(numbers) < wanted:
            if self._left < BLOCK:
                raise InvalidInput("malformed tar: a sparse file's table is cut short")
            self._left -= BLOCK
            *lines, rest = (rest + self._take(BLOCK)).split(b"\n")
            if len(rest) > 32:
                raise InvalidInput("malformed tar: a sparse file's table is no table")
            for line in lines:
                if len(numbers) < wanted:
                    numbers.append(_decimal(line))
                    if len(numbers) == 1:
                        wanted = 1 + 2 * numbers[0]
                        if numbers[0] > MAX_SPARSE_PARTS:
                            raise InvalidInput("malformed tar: a sparse file with too many parts")
        return list(zip(numbers[1::2], numbers[2::2], strict=True))


def is_header(block: bytes) -> bool:
    """Whether a tar may begin with it."""
    try:
        _check(block)
    except InvalidInput:
        return False
    return True


def _check(header: bytes) -> None:
    field = header[148:156]
    try:
        stated = int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise InvalidInput("malformed tar: a header without a checksum") from None
    if len(header) != BLOCK or sum(header) - sum(field) + _SPACES != stated:
        raise InvalidInput("malformed tar: a header's checksum is wrong")


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 when the first bit is set. Negative ones become what they mean."""
    if field[0] & 0x80:
        if field[0] == 0xFF:
            return int.from_bytes(field, "big", signed=True)
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise InvalidInput(f"malformed tar: {digits!r} is no number") from None


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise InvalidInput(f"malformed tar: {digits[:40]!r} is no number")
    return int(digits)


def _pax_records(data: bytes, into: dict[bytes, bytes]) -> None:
    sparse: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at:space]) if space > 0 else 0
        end = at + length
        if length == 0 or end > len(data) or end <= space + 2 or data[end - 1] != 0x0A:
            raise InvalidInput("malformed tar: a pax record is broken")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise InvalidInput("malformed tar: a pax record without a key")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):  # format 0.0 repeats its keys
            sparse.append(value)
        else:
            into[key] = value
        at = end
    if sparse:
        into[b"GNU.sparse.map"] = into.get(b"GNU.sparse.map", b"") + b",".join(sparse) + b","


def _apply_pax(entry: Entry, pax: dict[bytes, bytes], size: int) -> int:
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.linkname = value
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"size":
            size = _decimal(value)
        elif key == b"mtime":
            entry.mtime_ns = _nanoseconds(value)
        elif key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :].decode("utf-8", "surrogateescape")] = value
    if b"\0" in entry.name or b"\0" in entry.linkname:
        raise InvalidInput("malformed tar: a name with a zero byte")
    return size


def _nanoseconds(value: bytes) -> int:
    sign, digits = (-1, value[1:]) if value[:1] == b"-" else (1, value)
    whole, _, fraction = digits.partition(b".")
    if fraction and not fraction.isdigit():
        raise InvalidInput(f"malformed tar: {value[:40]!r} is no time")
    return sign * (_decimal(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def _sparse_table(table: bytes, into: list[tuple[int, int]]) -> None:
    for at in range(0, len(table) - 23, 24):
        if table[at] == 0:
            return
        into.append((_number(table[at : at + 12]), _number(table[at + 12 : at + 24])))


def _check_sparse(entry: Entry, parts: list[tuple[int, int]]) -> None:
    end = 0
    for offset, length in parts:
        if offset < end or length < 0:
            raise InvalidInput(f"malformed tar: sparse file {_show(entry.name)} has overlapping parts")
        end = offset + length
    if end > entry.size:
        raise InvalidInput(f"malformed tar: sparse file {_show(entry.name)} is longer than it says")
    entry.sparse = parts


def _show(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "backslashreplace"))
