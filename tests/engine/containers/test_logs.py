"""What the zygote writes is what a reader gets: lines of any length, any bytes, over rotations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.containers.loglines import Entry, parse
from engine.containers.logs import Reading, Selection
from engine.runtime.zygote.logpump import LogFile, Stream


class Writer:
    """The zygote's side of one container's two streams."""

    def __init__(self, path: Path, max_size: int | None = None, max_files: int = 1) -> None:
        self.path = path
        self._log = LogFile(str(path), max_size, max_files)
        self._ends: dict[str, int] = {}
        self._streams: dict[str, Stream] = {}
        for name in ("stdout", "stderr"):
            near, self._ends[name] = os.pipe()
            self._streams[name] = Stream(name, near, self._log)

    def say(self, data: bytes, name: str = "stdout") -> None:
        while data:
            os.write(self._ends[name], data[:60_000])
            data = data[60_000:]
            stream = self._streams[name]
            for _ in range(3):
                stream.pump()

    def end(self) -> None:
        for name, fd in self._ends.items():
            os.close(fd)
            self._streams[name].drain()
            os.close(self._streams[name].fd)
        self._log.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "log")
    yield made
    made.end()


async def entries(path: Path, **selection: object) -> list[Entry]:
    return [entry async for entry in Reading(path, Selection(**selection))]  # type: ignore[arg-type]


async def text(path: Path, **selection: object) -> bytes:
    return b"".join([data for _, _, data in await entries(path, **selection)])


async def test_streams_stand_apart_and_in_order(writer: Writer) -> None:
    writer.say(b"one\ntwo\n")
    writer.say(b"oops\n", "stderr")
    writer.say(b"three\n")
    assert [(stream, data) for stream, _, data in await entries(writer.path)] == [
        ("stdout", b"one\n"),
        ("stdout", b"two\n"),
        ("stderr", b"oops\n"),
        ("stdout", b"three\n"),
    ]
    assert await text(writer.path, stdout=False) == b"oops\n"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=200)), max_size=8),
    st.sampled_from([None, 120, 1000]),
)
def test_whatever_is_written_is_read(pieces: list[tuple[str, bytes]], max_size: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "log", max_size, 1000)
        said = {"stdout": b"", "stderr": b""}
        for name, data in pieces:
            writer.say(data, name)
            said[name] += data
        writer.end()
        found = {"stdout": b"", "stderr": b""}
        for stream, _, data in asyncio.run(entries(writer.path)):
            found[stream] += data
        assert found == said


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 1_000_000 + b"\n",
        bytes(range(256)) * 300,
        "zwölf €\U0001f600\n".encode() * 9000,
        b'\\n"\\\n' * 999,
        b"\n" * 70_000,
    ],
    ids=["long", "binary", "utf8", "escapes", "empty"],
)
async def test_long_and_binary_output(writer: Writer, data: bytes) -> None:
    writer.say(data)
    writer.say(b"\n")
    assert await text(writer.path) == data + b"\n"


async def test_a_long_line_counts_once(writer: Writer) -> None:
    writer.say(b"first\n" + b"x" * 100_000 + b"\n" + b"last\n")
    assert len(await text(writer.path, tail=2)) == 100_006
    assert await text(writer.path, tail=1) == b"last\n"


@pytest.mark.parametrize("tail", [0, 1, 5, 999, 1000, 5000])
async def test_the_tail(writer: Writer, tail: int) -> None:
    lines = [b"%d %s\n" % (number, b"y" * (number % 700)) for number in range(1000)]
    writer.say(b"".join(lines))
    assert await text(writer.path, tail=tail) == b"".join(lines[len(lines) - tail :] if tail < 1000 else lines)


async def test_the_tail_of_one_stream_goes_further_back(writer: Writer) -> None:
    writer.say(b"old\n", "stderr")
    writer.say(b"new\n" * 50)
    assert await text(writer.path, tail=2, stdout=False) == b"old\n"


async def test_since_and_until(writer: Writer) -> None:
    times = []
    for number in range(4):
        writer.say(b"%d\n" % number)
        times.append((await entries(writer.path))[-1][1])
    assert await text(writer.path, since=times[1], until=times[2]) == b"1\n2\n"
    assert await text(writer.path, since=times[3] + 1) == b""
    assert await text(writer.path, tail=2, since=times[3]) == b"3\n"


async def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log", 1000, 3)
    for number in range(100):
        writer.say(b"line %04d\n" % number)
    writer.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    found = (await text(writer.path)).split(b"\n")[:-1]
    assert found == [b"line %04d" % number for number in range(100 - len(found), 100)]
    assert len(found) > 20


async def test_the_tail_between_one_file_and_the_next(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log", None, 2)
    writer.say(b"one\ntwo\nthree\n")
    writer.end()
    writer.path.rename(tmp_path / "log.1")
    assert await text(writer.path, tail=2) == b"two\nthree\n"


async def test_one_file_begins_anew(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log", 500, 1)
    writer.say(b"x\n" * 100)
    writer.say(b"y" * 20_000 + b"\n")
    writer.end()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (await text(writer.path)).endswith(b"y\n")


@pytest.mark.parametrize(("max_size", "max_files"), [(None, 1), (2000, 1000), (2000, 3), (2000, 1)])
async def test_a_follower_misses_nothing_that_was_not_thrown_away(
    tmp_path: Path, max_size: int | None, max_files: int
) -> None:
    writer = Writer(tmp_path / "log", max_size, max_files)
    ended = False
    found: list[int] = []

    async def follow() -> None:
        async for _, _, data in Reading(writer.path, Selection(), follow=True, ended=lambda: ended):
            found.append(int(data))

    following = asyncio.create_task(follow())
    for number in range(600):
        writer.say(b"%d\n" % number)
        if number % 20 == 0:
            await asyncio.sleep(0.001)
    ended = True
    writer.end()
    await asyncio.wait_for(following, 10)
    # In order, without a gap but for whole files that were dropped before they could be read.
    assert found == sorted(set(found))
    assert found[-1] == 599
    if max_files != 1 and max_files != 3:
        assert found == list(range(600))


async def test_a_follower_with_a_bound_stops_there(writer: Writer) -> None:
    writer.say(b"here\n")
    until = (await entries(writer.path))[0][1] + 50_000_000
    found = [
        data async for _, _, data in Reading(writer.path, Selection(until=until), follow=True, ended=lambda: False)
    ]
    assert found == [b"here\n"]


async def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    for tail in (None, 0, 5):
        assert await entries(tmp_path / "none", tail=tail) == []


async def test_a_crash_leaves_half_a_line(writer: Writer) -> None:
    writer.say(b"whole\n")
    with writer.path.open("ab") as file:
        file.write(b'{"log":"hal')
    assert await text(writer.path) == b"whole\n"
    assert await text(writer.path, tail=0) == b""


@pytest.mark.parametrize("line", [b"", b"{", b"[]\n", b'{"log":5}\n', b"\xff\n", b"null\n", b'{"log":"\xff"}\n'])
def test_broken_lines_are_passed_over(line: bytes) -> None:
    assert parse(line) is None


def test_a_broken_time_is_no_time() -> None:
    assert parse(b'{"log":"x","stream":"stderr","time":"soon"}\n') == ("stderr", 0, b"x")


async def test_what_was_there_is_read_though_the_container_is_removed(writer: Writer) -> None:
    writer.say(b"last words\n")
    async with Reading(writer.path, Selection(), follow=True) as lines:
        shutil.rmtree(writer.path.parent)
        assert [data async for _, _, data in lines] == [b"last words\n"]


async def test_a_reading_that_can_not_begin_watches_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    watched = _watches()
    with pytest.raises(IsADirectoryError):
        async with Reading(tmp_path / "log", Selection(), follow=True):
            pass
    assert _watches() == watched


def _watches() -> int:
    """How many inotify descriptors this process has."""
    aims = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            aims.append(os.readlink(f"/proc/self/fd/{fd}"))
    return aims.count("anon_inode:inotify")
