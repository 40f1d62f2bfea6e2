"""`python -m server` as `shipway up` and an init system run it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from click.testing import CliRunner

from pipeline.store import open_store
from server.__main__ import server
from server.hooks.signature import sign
from tests.patience import wait_for
from tests.server.running import SECRET

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(data: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = data / "log"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SHIPWAY_")}
    broker = f"redis+socket://{data}/no-broker.sock"
    with log.open("w") as file:
        started = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            cwd=ROOT,
            env={**kept, "SHIPWAY_DATA": str(data), "SHIPWAY_BROKER_URL": broker, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            text=True,
        )
    try:
        yield started, log
    finally:
        if started.poll() is None:
            started.kill()
        started.wait(20)


def test_it_serves_and_stops_by_sigterm_with_a_stream_open(tmp_path: Path) -> None:
    with process(tmp_path, "--listen", "127.0.0.1:0") as (started, log):
        found = wait_for(lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()), "the listening")
        port = int(found[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/live")
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline()
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
        response.read()
        connection.close()
        assert "Traceback" not in log.read_text()


def test_it_stops_though_git_hangs_and_goes_on_with_the_push_afterwards(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"repositories: {{web: {{url: 'ssh://git@git.example.com/web.git', secret: {SECRET}}}}}\n")
    body = json.dumps({"repository": "web", "ref": "refs/heads/main", "after": "a" * 40}).encode()
    hanging = {"SHIPWAY_CONFIG": str(config), "GIT_SSH_COMMAND": "sleep 600 #", "TMPDIR": str(tmp_path)}
    with process(tmp_path, "--listen", "127.0.0.1:0", **hanging) as (started, log):
        found = wait_for(lambda: re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text()), "the listening")
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        connection.request("POST", "/hooks/generic", body, {"X-Shipway-Signature-256": sign(SECRET, body)})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["runs"]) == (202, [])
        connection.close()
        parent = psutil.Process(started.pid)
        left = wait_for(lambda: [each for each in parent.children(recursive=True) if each.name() == "sleep"], "git")
        left += [each for each in parent.children(recursive=True) if each not in left]
        try:
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == 0
        finally:
            for each in left:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(left, timeout=20)
    with open_store(f"sqlite:///{tmp_path}/shipway.db") as store:
        assert [event.sha for _, event in store.pending_events()] == ["a" * 40]


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(tmp_path, SHIPWAY_LISTEN_PORT=str(port)) as (started, log):
            assert started.wait(20) == 1
            (line,) = log.read_text().splitlines()
    assert line.startswith(f"Error: 127.0.0.1:{port}: Address already in use: ")
    assert "--listen" in line


def test_settings_that_are_wrong_are_one_line(tmp_path: Path) -> None:
    with process(tmp_path, SHIPWAY_LISTEN_PROT="7700") as (started, log):
        assert started.wait(20) == 1
        (line,) = log.read_text().splitlines()
    assert "SHIPWAY_LISTEN_PROT" in line
    assert "SHIPWAY_LISTEN_PORT" in line


def test_an_address_that_is_none_is_refused() -> None:
    for listen in ("7700", ":7700", "host:", "host:99999", "host:http"):
        result = CliRunner().invoke(server, ["--listen", listen])
        assert result.exit_code == 2
        assert "HOST:PORT" in result.output


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(server, ["--help"])
    assert "Example: " in result.output
