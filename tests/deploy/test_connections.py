from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.connections import open_connections


def settles_at(wanted: int | None, port: int, pid: int | None = None) -> None:
    """The kernel needs a moment to tell of a connection's end."""
    deadline = time.monotonic() + 10
    while (found := open_connections(pid or os.getpid(), port)) != wanted:
        assert time.monotonic() < deadline, f"{found} connections, not {wanted}"
        time.sleep(0.01)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_is_still_served(family: socket.AddressFamily, address: str):
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        settles_at(0, port)
        first = socket.create_connection((address, port))
        second = socket.create_connection((address, port))
        settles_at(2, port)
        served = [listener.accept()[0] for _ in range(2)]
        first.shutdown(socket.SHUT_WR)
        settles_at(2, port)
        served[0].close()
        first.close()
        settles_at(1, port)
        second.close()
        settles_at(1, port)
        served[1].close()
        settles_at(0, port)


def test_a_process_that_is_gone():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert open_connections(done.pid, 80) is None


@pytest.mark.kernel
def test_only_those_in_its_own_network():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        apart = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", "print('up', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert apart.stdout is not None
        assert apart.stdout.readline() == b"up\n"
        with socket.create_connection(("127.0.0.1", port)):
            settles_at(1, port)
            settles_at(0, port, apart.pid)
        apart.communicate(b"\n")


def test_states_that_keep_a_replica_busy(tmp_path: Path):
    """ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK and CLOSING; not what only waits for its end."""
    lines = ["  sl  local_address rem_address   st"]
    lines += [
        f"   {n}: 0100007F:1F40 0100007F:9C40 {state:02X} 00000000:00000000" for n, state in enumerate(range(1, 13))
    ]
    lines.append("  99: 0100007F:1F41 0100007F:1F40 01 00000000:00000000")
    folder = tmp_path / "7" / "net"
    folder.mkdir(parents=True)
    (folder / "tcp").write_text("\n".join(lines) + "\n")
    assert open_connections(7, 8000, proc=tmp_path) == 6
