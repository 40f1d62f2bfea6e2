from __future__ import annotations

import base64
import io
import json
import tarfile

import docker
import pytest

from tests.engine.api.wire import BUSYBOX, Wire
from tests.engine.tars import tar_of

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("running", [True, False])
def test_files_go_in_and_come_out(wire: Wire, client: docker.DockerClient, *, running: bool) -> None:
    made = wire.start("files") if running else wire.make("files")
    assert wire.ask("PUT", f"/containers/{made}/archive?path=/tmp", tar_of({"a": b"content"})).status == 200
    answer = wire.ask("GET", f"/containers/{made}/archive?path=/tmp/a")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        (member,) = tar.getmembers()
        assert (member.name, tar.extractfile(member).read()) == ("a", b"content")  # type: ignore[union-attr]
    stat = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    assert (stat["name"], stat["size"], stat["linkTarget"]) == ("a", 7, "")
    assert wire.ask("HEAD", f"/containers/{made}/archive?path=/tmp/a").headers["X-Docker-Container-Path-Stat"]


def test_what_a_copied_folder_is_called(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("files")
    for path, name in {"/etc": "etc", "/etc/": "etc", "/etc/.": ".", "/etc/./": ".", ".": ".", "./": "."}.items():
        answer = wire.ask("GET", f"/containers/{made}/archive?path={path}")
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
            assert {member.split("/")[0] for member in tar.getnames()} == {name}, path


@pytest.mark.parametrize(("user", "owner"), [("", 5), ("7", 7)])
def test_owners_that_are_kept(wire: Wire, client: docker.DockerClient, user: str, owner: int) -> None:
    made = client.containers.create(BUSYBOX, "true", user=user).id
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("a")
        entry.uid = 5
        tar.addfile(entry)
    assert wire.ask("PUT", f"/containers/{made}/archive?path=/tmp&copyUIDGID=1", buffer.getvalue()).status == 200
    answer = wire.ask("GET", f"/containers/{made}/archive?path=/tmp/a")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert tar.getmember("a").uid == owner


def test_what_can_not_be_copied(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.start("files")
    path = f"/containers/{made}/archive"
    assert wire.ask("GET", path).status == 400
    missing = wire.ask("GET", f"{path}?path=/nothing").message
    assert missing == f"Could not find the file /nothing in container {made}"
    assert "not a directory" in wire.ask("GET", f"{path}?path=/etc/passwd/").message
    for method in ("GET", "HEAD", "PUT"):
        assert wire.ask(method, f"{path}?path=/nothing", tar_of({"a": b""}) if method == "PUT" else None).status == 404
    assert wire.ask("PUT", f"{path}?path=/etc/passwd", tar_of({"a": b""})).status == 400
    assert wire.ask("PUT", f"{path}?path=/tmp", b"junk").status == 400
    assert wire.ask("GET", "/containers/missing/archive?path=/").status == 404


def test_an_export_is_the_whole_root(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("files")
    wire.ask("PUT", f"/containers/{made}/archive?path=/tmp", tar_of({"mark": b"x"}))
    with tarfile.open(fileobj=io.BytesIO(wire.ask("GET", f"/containers/{made}/export").body)) as tar:
        assert {"bin/busybox", "etc/passwd", "tmp/mark"} <= set(tar.getnames())
