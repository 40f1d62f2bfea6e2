"""Builds through a daemon of their own, as clients make them: what its API carries, and what is left when it ends."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from engine.config import EngineConfig
from tests import needs
from tests.engine.build.reference.material import make_base
from tests.engine.tars import tar_of
from tests.patience import wait_for

pytestmark = pytest.mark.kernel
MARKER = "x7marker7x-not-to-be-found"


@dataclass
class Daemon:
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)
    api: Any = field(init=False)

    def start(self) -> None:
        address = self.folder / "s.sock"
        words = [sys.executable, "-m", "cli", "engine", "--host", f"unix://{address}"]
        words += ["--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "x")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        wait_for(lambda: self._listens(address), "the engine's start", 30)
        self.api = docker.APIClient(f"unix://{address}", version="1.41", timeout=60)

    def _listens(self, path: Path) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    def stop(self) -> None:
        self.api.close()
        self.process.terminate()
        self.process.wait(30)

    def send(self, dockerfile: str, files: dict[str, str] | None = None, **more: Any) -> Any:
        context = {"Dockerfile": dockerfile, **(files or {})}
        sent = tar_of({name: content.encode() for name, content in context.items()})
        headers = {"Content-Type": "application/x-tar", **more.pop("headers", {})}
        params = {"networkmode": "none", **more}
        return self.api._post(self.api._url("/build"), data=sent, params=params, headers=headers, stream=True)

    def build(self, dockerfile: str, files: dict[str, str] | None = None, **more: Any) -> list[dict[str, Any]]:
        """The messages of a build."""
        with contextlib.closing(self.send(dockerfile, files, **more)) as response:
            return [json.loads(line) for line in response.iter_lines() if line]

    def residue(self) -> list[str]:
        """What steps have under way: their folders, control groups and mounts."""
        found = [str(path) for path in (self.folder / "data/build/steps").glob("*")]
        found += [str(path) for path in (self.folder / "x/steps").glob("*")]
        found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.folder) in line]
        parent = EngineConfig(data_root=self.folder / "data").cgroup_parent.lstrip("/")
        groups = [*Path("/sys/fs/cgroup").glob(f"{parent}/*/"), *Path("/sys/fs/cgroup").glob(f"*/{parent}/*/")]
        return found + [str(path) for path in groups]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    needs.root()
    folder = Path(tempfile.mkdtemp(prefix="swb"))
    made = Daemon(folder)
    try:
        made.start()
        base = make_base(tmp_path_factory.mktemp("base") / "root")
        (base / "bin/sleep").symlink_to("busybox")
        (base / "bin/dd").symlink_to("busybox")
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            tar.add(base, ".")
        made.api.import_image_from_data(raw.getvalue(), repository="base", changes=["ENV PATH=/bin"])
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def said(messages: list[dict[str, Any]]) -> str:
    return "".join(str(message.get("stream", "")) for message in messages)


def until(response: Any, words: str) -> None:
    """Reads a build's messages up to what a step has said."""
    for line in response.iter_lines():
        if json.loads(line).get("stream") == words:
            return
    raise AssertionError(f"{words!r} was never said")


def error(messages: list[dict[str, Any]]) -> str:
    return str(messages[-1].get("error", ""))


def secrets(**values: str) -> dict[str, str]:
    packed = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    return {"X-Build-Secrets": base64.urlsafe_b64encode(json.dumps(packed).encode()).decode()}


def test_secrets_are_seen_by_the_step_and_by_nobody_else(daemon: Daemon) -> None:
    text = """\
FROM base
RUN --mount=type=secret,id=t cat /run/secrets/t > /dev/null
RUN --mount=type=secret,id=t,env=T echo ${#T} > /length
"""
    since = int(time.time())
    messages = daemon.build(text, headers=secrets(t=MARKER), t="secretive", buildargs='{"BUILDKIT_INLINE_CACHE":"1"}')
    assert not error(messages)
    assert MARKER not in said(messages)
    image = daemon.api.inspect_image("secretive")
    told = json.dumps([image, daemon.api.history("secretive"), messages])
    told += "".join(map(str, daemon.api.events(since=since, until=int(time.time()) + 1)))
    saved = b"".join(daemon.api.get_image("secretive"))
    assert MARKER not in told
    assert MARKER.encode() not in saved
    for path in daemon.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert MARKER.encode() not in path.read_bytes(), path


def test_what_the_query_asks_for(daemon: Daemon) -> None:
    text = "FROM base AS one\nARG V=0\nRUN echo $V; cat /etc/hosts\nFROM one\nRUN never\n"
    messages = daemon.build(
        text,
        target="one",
        buildargs='{"V":"7","X":"1"}',
        labels='{"l":"m"}',
        extrahosts="there:10.9.8.7",
        networkmode="bridge",
        t=["a:1", "b:2"],
        nocache=1,
    )
    assert "7\n" in said(messages)
    assert "10.9.8.7\tthere" in said(messages)
    assert "build-arg X was not consumed" in said(messages)
    image = daemon.api.inspect_image("b:2")
    assert (image["Config"]["Labels"], sorted(image["RepoTags"])) == ({"l": "m"}, ["a:1", "b:2"])
    assert messages[-1] == {"stream": "Successfully tagged b:2\n"}
    assert [image["Id"]] == [json.loads(json.dumps(m))["aux"]["ID"] for m in messages if "aux" in m]


def test_steps_have_the_limits_that_the_query_asks_for(daemon: Daemon) -> None:
    asked = {
        "memory": 64 << 20, "memswap": 96 << 20, "cpusetcpus": "0", "cpushares": 77, "shmsize": 1 << 20,
        "ulimits": '[{"Name":"nofile","Soft":100,"Hard":200}]', "securityopt": '["no-new-privileges"]',
    }  # fmt: skip
    text = (
        "FROM base\nRUN ulimit -n; ulimit -Hn; cat /proc/self/status /proc/mounts; cat /sys/fs/cgroup/memory/*limit_*\n"
    )
    messages = said(daemon.build(text, nocache=1, **asked))
    for words in ("100\n200\n", "NoNewPrivs:\t1", "Cpus_allowed_list:\t0\n", "size=1024k"):
        assert words in messages
    if Path("/sys/fs/cgroup/memory").exists():
        assert f"\n{64 << 20}\n" in messages
        assert f"\n{96 << 20}\n" in messages
    assert "Minimum memory limit" in str(daemon.build("FROM base\n", memory=5)[0])
    assert "squash is not supported" in str(daemon.build("FROM base\n", squash=1)[0])


def test_failures_are_told_with_line_and_code(daemon: Daemon) -> None:
    messages = daemon.build("FROM base\n\nRUN exit 7\n")
    assert messages[-1]["errorDetail"]["code"] == 7
    assert error(messages).startswith("Dockerfile:3: RUN: The command '/bin/sh -c exit 7' returned a non-zero code: 7")
    assert daemon.residue() == []


@pytest.mark.parametrize(
    ("option", "name"), [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
)
def test_a_dockerfile_alone_gets_no_more_than_it_is_given(daemon: Daemon, option: str, name: str) -> None:
    text = f"FROM base\nRUN {option} true\n"
    assert error(daemon.build(text)) == (
        f"Dockerfile:2: RUN: {option} is not allowed: the build must "
        + (f"have that network, or {name}" if "network" in option else f"be given {name}")
    )
    assert not error(daemon.build(text, headers={"X-Build-Allow": f"{name},"}))
    assert name in str(daemon.build(text, headers={"X-Build-Allow": "everything"})[0])


@pytest.mark.parametrize("remote", ["http://127.0.0.1:9/x.tar", "http://[::1]/a.git", "nonsense"])
def test_contexts_from_addresses_are_under_the_policy(daemon: Daemon, remote: str) -> None:
    with contextlib.closing(daemon.send("", remote=remote)) as response:
        assert response.status_code in (400, 403)
        assert ("no build context" if remote == "nonsense" else "no public address") in response.json()["message"]


def test_a_client_that_waits_is_told_to_go_on(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(daemon.folder / "s.sock"))
        client.sendall(b"POST /build HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 1024\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(bytes(1024))
        assert client.recv(15) == b"HTTP/1.1 400 Ba", "a context without a Dockerfile"


def test_a_client_that_goes_away_stops_its_step_at_once(daemon: Daemon) -> None:
    with contextlib.closing(daemon.send("FROM base\nRUN echo begun; sleep 1000\n", nocache=1)) as response:
        until(response, "begun\n")
        assert len(daemon.residue()) > 2
    wait_for(lambda: daemon.residue() == [], "the clean-up", 30)


def test_two_equal_builds_at_once_share_their_work(daemon: Daemon) -> None:
    text = "FROM base\nRUN echo $$ > /pid; cat /proc/sys/kernel/random/uuid | cat > /one; sleep 0.5; echo ran\n"
    found: list[list[dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda: found.append(daemon.build(text))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({m["aux"]["ID"] for messages in found for m in messages if "aux" in m}) == 1
    assert sum("ran\n" in said(messages).replace("echo ran\n", "") for messages in found) == 1
    assert sum("Using cache" in said(messages) for messages in found) == 2


def test_killed_in_a_step_the_engine_comes_back_clean(daemon: Daemon) -> None:
    text = "FROM base\nRUN echo kept > /kept\nRUN echo begun; sleep 1000\n"
    with contextlib.closing(daemon.send(text, nocache=1)) as response:
        until(response, "begun\n")
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    daemon.api.close()
    daemon.start()
    wait_for(lambda: daemon.residue() == [], "the clean-up", 30)
    messages = daemon.build("FROM base\nRUN echo kept > /kept\nRUN echo done\n")
    assert "Using cache" in said(messages), "what was finished before is reused"
    assert "done\n" in said(messages)
