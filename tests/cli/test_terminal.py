"""stdin and stdout carried to a container's streams and back, over a real pair of sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.terminal import pump

LARGE = bytes(1 << 20)
"""More than all buffers on the way hold."""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, Callable[..., None]], None]]:
    """Carries some bytes as stdin to what is done at the far side, until that is over."""
    near, far = socket.socketpair()
    far.settimeout(10)

    def run(stdin: bytes, act: Callable[..., None]) -> None:
        def until_closed() -> None:
            with far:
                act(far)

        (tmp_path / "stdin").write_bytes(stdin)
        with (tmp_path / "stdin").open() as file, ThreadPoolExecutor(1) as pool:
            monkeypatch.setattr("sys.stdin", file)
            done = pool.submit(until_closed)
            pump(near, framed=False)
            done.result()

    with near, far:
        yield run


def test_it_may_say_much_before_it_reads_on(
    shell: Callable[..., None], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    read = bytearray()

    def act(far: socket.socket) -> None:
        far.sendall(LARGE)
        while data := far.recv(65536):
            read.extend(data)

    shell(LARGE, act)
    assert (len(read), len(capfdbinary.readouterr().out)) == (len(LARGE), len(LARGE))


def test_it_may_end_before_it_has_read_all(
    shell: Callable[..., None], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def act(far: socket.socket) -> None:
        far.recv(1)
        far.sendall(b"the end\n")

    shell(b"exit\nmore\n", act)
    assert capfdbinary.readouterr().out == b"the end\n"
