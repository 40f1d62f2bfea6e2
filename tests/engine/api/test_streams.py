"""Attach and exec: raw bytes both ways, half-closed, left, detached from."""

from __future__ import annotations

import socket

import docker
import pytest

from tests.engine.api.wire import Wire, frames
from tests.patience import wait_for

pytestmark = pytest.mark.kernel
TALKS = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}


def _rest(connection: socket.socket) -> bytes:
    said = b""
    while piece := connection.recv(65536):
        said += piece
    return said


def _exec(wire: Wire, container: str, *argv: str, **more: object) -> str:
    wanted = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True} | more
    answer = wire.ask("POST", f"/containers/{container}/exec", wanted)
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def _said(wire: Wire, exec_id: str, body: bytes = b'{"Detach": false}') -> list[tuple[int, bytes]]:
    with wire.stream("POST", f"/exec/{exec_id}/start", until=b"\r\n\r\n", upgrade=True, body=body) as connection:
        return frames(_rest(connection))


def test_output_goes_on_after_the_end_of_input(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("talks", "sh", "-c", "cat; echo done", **TALKS)
    path = f"/containers/{made}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    with wire.stream("POST", path, until=b"\r\n\r\n", upgrade=True) as connection:
        wire.ask("POST", f"/containers/{made}/start")
        connection.sendall(b"hello\n")
        connection.shutdown(socket.SHUT_WR)
        assert b"".join(data for _, data in frames(_rest(connection))) == b"hello\ndone\n"
    assert client.containers.get(made).wait()["StatusCode"] == 0


def test_detach_keys_leave_a_terminal(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.start("screen", "sh", "-c", "echo ready; cat", Tty=True, OpenStdin=True)
    path = f"/containers/{made}/attach?stream=1&stdin=1&stdout=1&logs=1&detachKeys=ctrl-a,x"
    with wire.stream("POST", path, until=b"ready\r\n", upgrade=True) as connection:
        connection.sendall(b"\x01x")
        assert _rest(connection) == b""
    assert client.containers.get(made).status == "running"
    assert wire.ask("POST", f"/containers/{made}/attach?detachKeys=nonsense").status == 400
    assert wire.ask("POST", f"/containers/{made}/resize?h=30&w=100").status == 200
    with wire.stream("POST", f"/containers/{made}/attach?stream=1&stdout=1", until=b"UPGRADED", upgrade=True):
        pass


def test_an_execution_has_detach_keys_of_its_own(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.start("host")
    known = _exec(wire, made, "cat", Tty=True, AttachStdin=True, DetachKeys="ctrl-a,x")
    with wire.stream(
        "POST", f"/exec/{known}/start", until=b"\r\n\r\n", upgrade=True, body=b'{"Tty":true}'
    ) as connection:
        connection.sendall(b"\x01x")
        assert _rest(connection) == b""
    assert wire.ask("GET", f"/exec/{known}/json").json["Running"]


def test_the_log_alone(wire: Wire, client: docker.DockerClient) -> None:
    """Without `stream` there is nothing to wait for, whether the container runs or not."""
    made = wire.start("said", "sh", "-c", "echo one; echo two >&2; sleep 600")
    wait_for(lambda: client.containers.get(made).logs().count(b"\n") == 2, "the two lines")
    for _ in range(2):
        answer = wire.ask("POST", f"/containers/{made}/attach?logs=1&stdout=1&stderr=1")
        assert sorted(frames(answer.body)) == [(1, b"one\n"), (2, b"two\n")]
        client.containers.get(made).stop(timeout=0)


def test_clients_that_leave_in_the_middle(wire: Wire, client: docker.DockerClient) -> None:
    """The container talks on, and nothing of them stays with the engine."""
    made = wire.start("chatty", "sh", "-c", "while true; do echo chat; done")
    idle = client.info()["NFd"]
    for method, path in [
        ("GET", f"/containers/{made}/logs?stdout=1&follow=1"),
        ("GET", f"/containers/{made}/stats"),
        ("GET", f"/containers/{made}/export"),
        ("POST", f"/containers/{made}/wait"),
        ("POST", f"/containers/{made}/attach?stream=1&stdout=1"),
        ("GET", "/events"),
    ]:
        for _ in range(3):
            with wire.stream(method, path, until=b"\r\n\r\n", upgrade="attach" in path) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: client.info()["NFd"] <= idle + 3, "the end of the engine's ends")
    assert client.containers.get(made).status == "running"


def test_executions(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.start("host")
    for argv, code, said in [
        (["echo", "hi"], 0, [(1, b"hi\n")]),
        (["sh", "-c", "echo no >&2; exit 42"], 42, [(2, b"no\n")]),
        (["sh", "-c", "kill -9 $$"], 137, []),
    ]:
        running = _exec(wire, made, *argv)
        assert _said(wire, running) == said
        shown = wire.ask("GET", f"/exec/{running}/json").json
        assert (shown["Running"], shown["ExitCode"], shown["ContainerID"]) == (False, code, made)
        assert wire.ask("POST", f"/exec/{running}/start", {}).status == 409
    assert _said(wire, _exec(wire, made, "id", "-u", User="nobody")) == [(1, b"65534\n")]
    said = _said(wire, _exec(wire, made, "sh", "-c", "echo $A; pwd", Env=["A=b"], WorkingDir="/tmp"))
    assert b"".join(data for _, data in said) == b"b\n/tmp\n"


@pytest.mark.parametrize(
    ("argv", "more", "code", "says"),
    [
        (["nothing"], {}, 127, b'exec: "nothing": executable file not found in $PATH'),
        (["/etc"], {}, 126, b'exec: "/etc": permission denied'),
        (["pwd"], {"WorkingDir": "/nothing"}, 127, b'chdir to cwd ("/nothing")'),
        (["id"], {"User": "nobody-knows"}, 126, b"unable to find user nobody-knows"),
    ],
)
def test_an_execution_that_fails_says_so_in_its_stream(
    wire: Wire, client: docker.DockerClient, argv: list[str], more: dict[str, object], code: int, says: bytes
) -> None:
    running = _exec(wire, wire.start("host"), *argv, **more)
    ((stream, said),) = _said(wire, running)
    assert (stream, says in said) == (1, True), said
    assert wire.ask("GET", f"/exec/{running}/json").json["ExitCode"] == code
    again = _exec(wire, "host", *argv, **more)
    assert wire.ask("POST", f"/exec/{again}/start", {"Detach": True}).status == 400


def test_executions_need_a_container_that_runs(wire: Wire, client: docker.DockerClient) -> None:
    wire.make("still")
    assert wire.ask("POST", "/containers/still/exec", {"Cmd": ["true"]}).status == 409
    wire.ask("POST", "/containers/still/start")
    for body in ({}, {"Cmd": []}, {"Cmd": ["true"], "DetachKeys": "nonsense"}):
        assert wire.ask("POST", "/containers/still/exec", body).status == 400
    wire.ask("POST", "/containers/still/pause")
    answer = wire.ask("POST", "/containers/still/exec", {"Cmd": ["true"]})
    assert (answer.status, "unpause the container before exec" in answer.message) == (409, True)
    assert wire.ask("POST", "/exec/missing/start", {}).message == "No such exec instance: missing"
