from __future__ import annotations

import json
import time

import docker
import pytest

from tests.engine.api.wire import BUSYBOX, Wire
from tests.engine.tars import tar_of
from tests.patience import wait_for

pytestmark = pytest.mark.kernel
STAGES = f"""
ARG BASE={BUSYBOX}
FROM $BASE AS build
ARG VERSION=1
WORKDIR /src
COPY . .
RUN echo "version $VERSION" > out && ls
FROM {BUSYBOX} AS check
COPY --from=build /src/out /out
RUN grep version /out
FROM {BUSYBOX}
COPY --from=build /src /src
USER nobody
EXPOSE 80
CMD ["cat", "/src/out"]
"""


def _context(dockerfile: str, **files: str) -> bytes:
    """As the docker command sends it: without an entry for the folder itself."""
    named = {"Dockerfile": dockerfile, **files}
    return tar_of({name.replace("_", "."): content.encode() for name, content in named.items()})


def _build(wire: Wire, context: bytes, query: str = "") -> list[dict[str, object]]:
    answer = wire.ask("POST", f"/build?{query}", context, {"Content-Type": "application/x-tar"})
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines()]


def _text(messages: list[dict[str, object]]) -> str:
    return "".join(str(message.get("stream", "")) for message in messages)


def test_stages_arguments_and_what_is_ignored(wire: Wire, client: docker.DockerClient) -> None:
    context = _context(STAGES, a="a", b_log="b", keep_log="k", _dockerignore="*.log\n!keep.log\n")
    said = _text(_build(wire, context, 't=staged&buildargs={"VERSION":"2"}&labels={"k":"v"}'))
    assert "Successfully tagged staged:latest\n" in said
    assert "grep" not in said, "stages that the target does not need are not built"
    assert client.containers.run("staged", remove=True) == b"version 2\n"
    kept = client.containers.run("staged", "ls -A /src", remove=True).split()
    assert kept == [b".dockerignore", b"Dockerfile", b"a", b"keep.log", b"out"]
    config = client.images.get("staged").attrs["Config"]
    assert (config["User"], config["ExposedPorts"], config["Labels"]) == ("nobody", {"80/tcp": {}}, {"k": "v"})
    again = _text(_build(wire, context, 't=staged&buildargs={"VERSION":"2"}&labels={"k":"v"}'))
    assert again.count("Using cache") >= 3
    assert "grep version /out" in _text(_build(wire, context, "target=check"))
    quiet = _text(_build(wire, context, "q=1"))
    assert quiet.startswith("sha256:")
    assert quiet.count("\n") == 1
    client.images.remove("staged")
    client.images.prune()
    assert wire.ask("POST", "/build/prune").json["SpaceReclaimed"] > 0


@pytest.mark.parametrize(
    ("text", "says", "code"),
    [
        (f"FROM {BUSYBOX}\nRUN exit 7\n", "Dockerfile:2: RUN: The command '/bin/sh -c exit 7' returned", 7),
        (f"FROM {BUSYBOX}\n\nCOPY missing /x\n", 'Dockerfile:3: COPY: "missing": file not found', None),
        (f"FROM {BUSYBOX}\nCOPY ../x /x\n", "Dockerfile:2: COPY:", None),
    ],
)
def test_a_step_that_fails(wire: Wire, text: str, says: str, code: int | None) -> None:
    answer = wire.ask("POST", "/build", _context(text), {"Content-Type": "application/x-tar"})
    last = json.loads(answer.body.splitlines()[-1])
    message = last.get("error") or last["message"]
    assert says in message
    assert last.get("errorDetail", {}).get("code") == code


@pytest.mark.parametrize(
    ("text", "query", "says"),
    [
        (f"FROM {BUSYBOX}\nNIX x\n", "", "line 2: unknown instruction: NIX"),
        ("RUN x\n", "", "no build stage in current context"),
        ("", "", "no instructions"),
        (f"FROM {BUSYBOX}\n", "target=missing", 'target stage "missing" could not be found'),
        (f"FROM {BUSYBOX}\n", "dockerfile=../../etc/passwd", "Cannot locate specified Dockerfile"),
        (f"FROM {BUSYBOX}\n", "buildargs=nonsense", "buildargs is no JSON"),
        (f"FROM {BUSYBOX}\n", "t=Bad", "must be lowercase"),
        (f"FROM {BUSYBOX}\n", "version=2", "DOCKER_BUILDKIT=0"),
    ],
)
def test_what_is_refused_before_it_begins(wire: Wire, text: str, query: str, says: str) -> None:
    answer = wire.ask("POST", f"/build?{query}", _context(text), {"Content-Type": "application/x-tar"})
    assert (answer.status, says in answer.message) == (400, True), answer


def _leave(wire: Wire) -> None:
    """In the middle of a step, and of uploads."""
    context = _context(f"FROM {BUSYBOX}\nRUN echo begun; sleep 600\n")
    with wire.stream("POST", "/build?nocache=1", until=b"begun", body=context):
        pass
    for path in ("/build", "/images/load", "/images/create?fromSrc=-"):
        with wire.connect() as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: engine\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode() + b"\0" * 512)


def test_listeners_hear_of_what_was_built(wire: Wire) -> None:
    begun = time.time()
    _build(wire, _context(f"FROM {BUSYBOX}\nLABEL k=v"), "t=heard")
    asked = f'/events?since={begun}&until={time.time()}&filters={{"label":["k=v"]}}'
    for version, actions in (("", ["create", "tag"]), ("/v1.45", ["tag"])):
        told = wire.ask("GET", version + asked).body.splitlines()
        assert [json.loads(line)["Action"] for line in told] == actions
    assert wire.ask("DELETE", "/images/heard").status == 200


def test_clients_that_leave_end_their_builds(wire: Wire, client: docker.DockerClient) -> None:
    _leave(wire)
    before = client.info()["NFd"]
    for _ in range(4):
        _leave(wire)
    wait_for(lambda: client.info()["NFd"] <= before + 3, "the end of what nobody waits for")
