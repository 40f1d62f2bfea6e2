"""The daemon's own start and end: what runs again, what is left, whom it lets in."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.__main__ import engine as engine_command
from engine.api.sockets import listen
from engine.errors import Conflict, InvalidInput
from scripts.baseimages import busybox_root
from tests.engine.api.wire import Wire, frames
from tests.engine.certificates import make_certificates
from tests.engine.containers.daemon import ROOT, Daemon, lines_of, running
from tests.leftovers import Leftovers
from tests.patience import wait_for
from tests.ports import free_port

pytestmark = pytest.mark.kernel


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


def _refusal(*flags: str) -> str:
    """What an engine that can't start says."""
    ended = subprocess.run(
        [sys.executable, "-m", "engine", *flags], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_what_runs_again_with_the_next_engine(daemon: Daemon) -> None:
    """Whatever was not ended by its user and has a policy; `--rm` ends with the engine."""
    policies = {"always": "always", "unless": "unless-stopped", "failed": "on-failure", "plain": "no"}
    script = "trap 'exit 1' TERM; echo up; while true; do sleep 0.05; done"
    made = [daemon.run(script, name=name, restart_policy={"Name": policy}) for name, policy in policies.items()]
    made.append(daemon.run(script, name="passing", auto_remove=True))
    ended = daemon.run(script, name="ended", restart_policy={"Name": "unless-stopped"})
    wait_for(lambda: all(lines_of(one) for one in (*made, ended)), "the containers' readiness")
    ended.stop()
    daemon.stop()
    daemon.start()
    assert {found.name: found.status for found in daemon.client.containers.list(all=True)} == {
        **dict.fromkeys(("always", "unless", "failed"), "running"),
        **dict.fromkeys(("plain", "ended"), "exited"),
    }


def test_nothing_is_left(daemon: Daemon) -> None:
    """Not by a crash and its aftermath either."""
    name = daemon.config.instance
    before = Leftovers.now()
    network = daemon.client.networks.create("net")
    for number in range(2):
        daemon.run("sleep 600", name=f"one{number}", network_mode="net", ports={"80/tcp": None})
    daemon.kill()
    daemon.start()
    for container in daemon.client.containers.list():
        container.remove(force=True)
    daemon.client.networks.get(network.id).remove()
    after_removal = {str(line) for line in (Leftovers.now() - before).links}
    assert not {line for line in after_removal if name in line}
    daemon.stop()
    left = str(Leftovers.now())
    assert not [line for line in left.splitlines() if name in line or str(daemon.place) in line]
    daemon.start()


def test_one_engine_a_folder(daemon: Daemon, tmp_path: Path) -> None:
    """Neither its data nor its zygote may be another's as well."""
    data, run = str(daemon.config.data_root), str(daemon.config.exec_root)
    own = ("--host", f"unix://{daemon.place}/other.sock")
    assert "another engine is running on" in _refusal(*own, "--data-root", data, "--exec-root", str(tmp_path))
    assert "another engine is running on" in _refusal(*own, "--data-root", str(tmp_path), "--exec-root", run)
    assert daemon.run("sleep 600").status in ("created", "running")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--dns", "nix"), "nix is no IP address"),
        (("--registry-mirror", "nix"), "write it as https://HOST[:PORT]"),
        (("--nothing",), "No such option"),
    ],
)
def test_flags_that_mean_nothing(flags: Sequence[str], says: str) -> None:
    ended = CliRunner().invoke(engine_command, flags)
    assert (ended.exit_code, says in ended.output) == (2, True), ended.output


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nix://x", "use unix://PATH, tcp://HOST:PORT or fd://"),
        ("tcp://127.0.0.1", "end it with a port"),
        ("tcp://127.0.0.1:99999", "end it with a port"),
        ("unix:///" + "x" * 120, "is too long"),
        ("fd://", "no sockets were passed"),
    ],
)
def test_hosts_that_are_none(host: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        listen(host, group="")


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folders = ("--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "run"))
    host = ("--host", f"unix://{tmp_path}/e.sock")
    assert "invalid subnet" in _refusal(*folders, *host, "--default-address-pool", "nix")
    assert "/missing.pem" in _refusal(*folders, *host, "--tlsverify", "--tlscert", "/missing.pem")
    assert not (tmp_path / "e.sock").exists()


def test_a_socket_is_taken_over_only_from_the_dead(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/e.sock"
    (first,) = listen(url, group="nobody-is-in-it")
    assert (tmp_path / "e.sock").stat().st_mode & 0o777 == 0o660
    with pytest.raises(Conflict, match="another engine does already"):
        listen(url, group="")
    first.close()
    (second,) = listen(url, group="")
    second.close()


def test_sockets_of_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    with pytest.raises(InvalidInput, match="no sockets were passed"):
        listen("fd://", group="")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    return make_certificates(tmp_path)


class _TlsWire(Wire):
    """The same over TLS."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__("")
        self._port, self._context = port, context

    def connect(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        return self._context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_tls(certificates: Path) -> None:
    """Only for clients with a certificate, and as good for streams as a local socket."""
    port = free_port()
    daemon = Daemon()
    try:
        daemon.start(
            *("--host", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", str(certificates / "ca.pem")),
            *("--tlscert", str(certificates / "server.pem"), "--tlskey", str(certificates / "server-key.pem")),
        )
        daemon.client.api.import_image_from_data(busybox_root(), repository="busybox", tag="1.35")
        context = ssl.create_default_context(cafile=certificates / "ca.pem")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _TlsWire(port, context).ask("GET", "/_ping")
        context.load_cert_chain(certificates / "client.pem", certificates / "client-key.pem")
        wire = _TlsWire(port, context)
        assert wire.ask("GET", "/_ping").body == b"OK"
        talks = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
        made = wire.make("talks", "sh", "-c", "cat; echo done", **talks)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            client = _HalfClosing(context, plain)
            client.say(f"POST /containers/{made}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n".encode())
            client.say(b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            assert client.hear(b"\r\n\r\n").startswith(b"HTTP/1.1 101 UPGRADED")
            wire.ask("POST", f"/containers/{made}/start")
            client.say(b"hello\n")
            client.farewell()
            assert b"".join(data for _, data in frames(client.hear())) == b"hello\ndone\n"
        daemon.client.containers.get(made).remove(force=True)
    finally:
        daemon.stop()
        shutil.rmtree(daemon.place)


class _HalfClosing:
    """A TLS client that says farewell and listens on, as Go's do and the ssl module's sockets can't."""

    def __init__(self, context: ssl.SSLContext, plain: socket.socket) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        self._do(self._tls.do_handshake)

    def _do(self, work: Callable[[], bytes | None]) -> bytes:
        while True:
            try:
                return work() or b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                self._plain.sendall(self._outgoing.read())
                self._incoming.write(self._plain.recv(65536))
            finally:
                self._plain.sendall(self._outgoing.read())

    def say(self, data: bytes) -> None:
        self._tls.write(data)
        self._plain.sendall(self._outgoing.read())

    def farewell(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._plain.sendall(self._outgoing.read())

    def hear(self, until: bytes = b"") -> bytes:
        """As far as `until`, or all that comes."""
        said = b""
        while not (until and until in said) and (piece := self._do(lambda: self._tls.read(65536))):
            said += piece
        return said


def test_a_second_signal_ends_it_at_once(daemon: Daemon) -> None:
    daemon.run("trap '' TERM; while true; do sleep 0.05; done", name="stubborn")
    daemon.client.close()
    daemon.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "SIGTERM: stopping" in daemon.log(), "the first signal's effect")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 130
    daemon.start()
    assert daemon.client.containers.get("stubborn").status == "running"
