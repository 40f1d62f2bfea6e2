"""The docker command itself, as its users type it: exit codes, standard streams, terminals."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import docker as library
import pytest

from tests.engine.api.wire import BUSYBOX
from tests.patience import wait_for

DOCKER = shutil.which("docker")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(DOCKER is None, reason="the docker command is not installed"),
    pytest.mark.usefixtures("client"),
]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class Docker:
    """`docker ARGUMENTS` on the session's engine, with an empty home."""

    def __init__(self, url: str, home: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DOCKER_HOST": url,
            "DOCKER_CONFIG": str(home),
            "DOCKER_BUILDKIT": "0",
            "TERM": "xterm",
        }

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        assert DOCKER is not None
        done = subprocess.run(
            [DOCKER, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def on_terminal(self, *arguments: str, script: Sequence[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        """On a terminal of its own; each time the first of a pair is seen, the second is typed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(DOCKER or "", ["docker", *arguments], self.environment)  # noqa: S606 - there is none wanted
        said, todo, deadline = b"", list(script), time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    said += os.read(terminal, 65536)
                except OSError:
                    break
            if todo and todo[0][0] in said:
                os.write(terminal, todo.pop(0)[1])
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


@pytest.fixture
def docker(engine: str, tmp_path: Path) -> Docker:
    return Docker(engine, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["sh", "-c", "exit 37"], 37, ""),
        (["nothing"], 127, "executable file not found in $PATH"),
        (["/etc"], 126, "permission denied"),
    ],
)
def test_exit_codes(docker: Docker, arguments: list[str], code: int, says: str) -> None:
    ended = docker("run", "--rm", "--network", "none", BUSYBOX, *arguments)
    assert (ended.code, says in ended.err) == (code, True), ended


def test_what_the_engine_refuses_is_125(docker: Docker) -> None:
    for flags, says in {
        ("--name", "../../x"): "only [a-zA-Z0-9]",
        ("--network", "missing"): "network missing not found",
        ("--memory", "4m"): "Minimum memory limit allowed is 6MB",
        ("--user", "nobody-knows"): "unable to find user nobody-knows",
        ("--cap-add", "NIX"): "CAP_NIX",
        ("--gpus", "all"): "could not select device driver",
    }.items():
        ended = docker("run", "--rm", *flags, BUSYBOX, "true")
        assert (ended.code, says in ended.err) == (125, True), ended
        assert "Unable to find image" not in ended.err
    assert docker("ps", "-aq").out == ""


def test_standard_streams(docker: Docker) -> None:
    assert docker("run", "--rm", "-i", BUSYBOX, "cat", stdin="in\n") == Ended(0, "in\n", "")
    ended = docker("run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2")
    assert ended == Ended(0, "out\n", "err\n")


def test_what_a_container_is_given(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("from the host\n")
    ended = docker(
        *("run", "--rm", "-e", "A=b", "--hostname", "there", "-w", "/tmp", "-v", f"{tmp_path}/shared:/shared:ro"),
        *("--tmpfs", "/scratch:size=1m", "--read-only", "--cap-drop", "ALL", "--memory", "64m", "--cpus", "0.5"),
        *("--pids-limit", "50", "--add-host", "else:1.2.3.4", "--security-opt", "no-new-privileges", BUSYBOX),
        *("sh", "-c"),
        "echo $A; hostname; pwd; cat /shared/file; touch /scratch/x; touch /x 2>&1; grep -c else /etc/hosts; "
        "grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status",
    )
    assert ended.code == 0
    assert ended.out.splitlines() == [
        *("b", "there", "/tmp", "from the host", "touch: /x: Read-only file system", "1"),
        *("CapBnd:\t0000000000000000", "NoNewPrivs:\t1"),
    ]


def test_a_life(docker: Docker) -> None:
    made = docker("run", "-d", "--name", "life", "-p", "127.0.0.1::80", BUSYBOX, "sleep", "600").out.strip()
    assert len(made) == 64
    assert docker("ps", "--format", "{{.Names}} {{.Command}}").out == 'life "sleep 600"\n'
    assert docker("port", "life", "80").out.startswith("127.0.0.1:")
    assert docker("exec", "life", "sh", "-c", "exit 42").code == 42
    assert docker("exec", "life", "nothing").code == 127
    assert docker("exec", "-d", "life", "touch", "/done").code == 0
    wait_for(lambda: docker("exec", "life", "ls", "/done").code == 0, "what was told to happen aside")
    assert docker("top", "life").out.splitlines()[1].endswith("sleep 600")
    assert docker("diff", "life").out == "A /done\n"
    assert docker("rm", "life").code == 1
    assert docker("stop", "-t", "0", "life").out == "life\n"
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "life").out == "exited 137\n"
    assert docker("start", "life").code == 0
    assert docker("kill", "life").code == 0
    assert docker("wait", "life").out == "137\n"
    assert docker("rm", "life").out == "life\n"
    assert docker("inspect", "life") == Ended(1, "[]\n", "Error: No such object: life\n")


def test_copies(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "file").write_text("content")
    docker("create", "--name", "copies", BUSYBOX, "true")
    assert docker("cp", f"{tmp_path}/in", "copies:/tmp/").code == 0
    assert docker("cp", "copies:/tmp/in/.", f"{tmp_path}/out").code == 0
    assert (tmp_path / "out" / "below" / "file").read_text() == "content"
    ended = docker("cp", f"{tmp_path}/in/below/file", "copies:/missing/")
    assert (ended.code, "no such directory" in ended.err) == (1, True)
    assert docker("cp", "copies:/missing", str(tmp_path)).code == 1


def test_builds(docker: Docker, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY . /src\nRUN ls -A /src\n")
    (folder / ".dockerignore").write_text("*.log\n")
    for name in ("a", "b.log"):
        (folder / name).write_text(name)
    ended = docker("build", "-t", "built", str(folder))
    assert (ended.code, "Successfully tagged built:latest" in ended.out) == (0, True), ended
    assert "b.log" not in ended.out
    (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN exit 7\n")
    ended = docker("build", str(folder))
    assert (ended.code, "Dockerfile:2: RUN" in ended.err) == (7, True), ended
    assert docker("images", "built", "--format", "{{.Repository}}:{{.Tag}}").out == "built:latest\n"
    assert docker("history", "built", "--format", "{{.CreatedBy}}").out.startswith("RUN /bin/sh -c ls -A /src")
    assert docker("rmi", "built").out.startswith("Untagged: built:latest\nDeleted: sha256:")
    docker("builder", "prune", "-f")


def test_images_as_files(docker: Docker, tmp_path: Path) -> None:
    docker("tag", BUSYBOX, "kept:1")
    assert docker("save", "-o", f"{tmp_path}/kept.tar", "kept:1").code == 0
    docker("rmi", "kept:1")
    assert docker("load", "-i", f"{tmp_path}/kept.tar").out == "Loaded image: kept:1\n"
    docker("rmi", "kept:1")
    docker("create", "--name", "root", BUSYBOX, "true")
    assert docker("export", "-o", f"{tmp_path}/root.tar", "root").code == 0
    assert docker("import", f"{tmp_path}/root.tar", "root:1").out.startswith("sha256:")
    assert docker("rmi", "root:1").code == 0


def test_summaries(docker: Docker) -> None:
    for arguments in (["version"], ["info"], ["system", "df"], ["system", "df", "-v"], ["system", "prune", "-f"]):
        ended = docker(*arguments)
        # Rules of the host that stand in the networks' way are told, and no fault of the engine.
        said = [line for line in ended.err.splitlines() if "let it through:" not in line]
        assert (ended.code, said) == (0, []), ended
    assert docker("info", "--format", "{{.Driver}} {{.OSType}}").out == "overlay2 linux\n"


def test_a_terminal(docker: Docker, client: library.DockerClient) -> None:
    code, said = docker.on_terminal(
        *("run", "-it", "--name", "screen", BUSYBOX, "sh"), script=[(b"# ", b"tty; exit 5\n")]
    )
    assert (code, b"/dev/pts/0" in said) == (5, True), said
    assert docker("start", "screen").code == 0
    code, said = docker.on_terminal("attach", "screen", script=[(b"", b"\n"), (b"# ", b"\x10\x11")])
    assert (code, b"read escape sequence" in said) == (1, True), said
    code, said = docker.on_terminal("exec", "-it", "screen", "sh", script=[(b"# ", b"exit 9\n")])
    assert code == 9
    assert client.containers.get("screen").status == "running"
