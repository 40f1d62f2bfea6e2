"""Pull and push, with the embedded registry and with Debian's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from engine.registry.server.access.accounts import Accounts
from tests.deploy.registries import debian, ours
from tests.engine.api.wire import BUSYBOX, Wire

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", params=[ours, debian], ids=["ours", "debian"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT."""
    with request.param(tmp_path_factory.mktemp("registry")) as url:
        yield url.removeprefix("http://")


def _messages(body: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in body.splitlines()]


def test_there_and_back(wire: Wire, client: docker.DockerClient, registry: str) -> None:
    name = f"{registry}/team/app"
    image = client.images.get(BUSYBOX)
    image.tag(name, "1")
    pushed = _messages(wire.ask("POST", f"/images/{name}/push?tag=1").body)
    assert pushed[0] == {"status": f"The push refers to repository [{name}]"}
    aux = pushed[-1]["aux"]
    assert isinstance(aux, dict)
    assert aux["Tag"] == "1"
    described = client.images.get_registry_data(f"{name}:1")
    assert described.id == aux["Digest"]
    assert described.has_platform("linux/" + client.info()["Architecture"].replace("x86_64", "amd64"))
    client.images.remove(f"{name}:1")
    pulled = client.images.pull(f"{name}@{aux['Digest']}")
    assert pulled.id == image.id
    assert f"{name}@{aux['Digest']}" in pulled.attrs["RepoDigests"]
    answer = wire.ask("POST", f"/images/create?fromImage={name}&tag=1")
    assert _messages(answer.body)[-1] == {"status": f"Status: Downloaded newer image for {name}:1"}
    answer = wire.ask("POST", f"/images/create?fromImage={name}&tag=1")
    assert _messages(answer.body)[-1] == {"status": f"Status: Image is up to date for {name}:1"}
    client.images.remove(f"{name}:1")


def test_words_that_are_no_credentials_are_nobodys(wire: Wire, client: docker.DockerClient, registry: str) -> None:
    """aiodocker sends "placeholder" for nobody."""
    client.images.get(BUSYBOX).tag(f"{registry}/app", "1")
    pushed = wire.ask("POST", f"/images/{registry}/app/push?tag=1", headers={"X-Registry-Auth": "placeholder"})
    assert pushed.status == 200, pushed
    assert "aux" in _messages(pushed.body)[-1]
    client.images.remove(f"{registry}/app:1")


def test_all_tags_of_a_repository(wire: Wire, client: docker.DockerClient, registry: str) -> None:
    name = f"{registry}/many"
    for tag in ("1", "2"):
        client.images.get(BUSYBOX).tag(name, tag)
    pushed = _messages(wire.ask("POST", f"/images/{name}/push").body)
    assert [message["aux"]["Tag"] for message in pushed if "aux" in message] == ["1", "2"]  # type: ignore[index]
    for tag in ("1", "2"):
        client.images.remove(f"{name}:{tag}")
    assert sorted(tag for image in client.images.pull(name, all_tags=True) for tag in image.tags if name in tag) == [
        f"{name}:1",
        f"{name}:2",
    ]
    for tag in ("1", "2"):
        client.images.remove(f"{name}:{tag}")


def test_what_is_not_there(wire: Wire, client: docker.DockerClient, registry: str) -> None:
    answer = wire.ask("POST", f"/images/{registry}/missing/push")
    assert (answer.status, "does not exist locally" in answer.message) == (404, True)
    with pytest.raises(docker.errors.NotFound, match=r"manifest unknown|name unknown"):
        client.images.pull(f"{registry}/missing", tag="1")
    with pytest.raises(docker.errors.NotFound):
        client.images.get_registry_data(f"{registry}/missing:1")
    assert wire.ask("POST", "/images/create").status == 400


def test_a_registry_that_is_down(wire: Wire, client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.APIError, match=r"Cannot connect|refused"):
        client.images.pull("127.0.0.1:1/x", tag="1")
    with pytest.raises(
        docker.errors.APIError, match=r"400 .*unknown operating system or architecture: invalid argument"
    ):
        client.images.pull("127.0.0.1:1/x", platform="foo", all_tags=True)


def test_a_registry_that_wants_to_know_who_asks(wire: Wire, tmp_path: Path) -> None:
    """404 as dockerd's: at a 401 the docker command stops and asks for a password, in a pipeline for ever."""
    with ours(tmp_path) as url:
        Accounts(tmp_path / "data").add("ada", "password of ada")
        name = f"{url.removeprefix('http://')}/ada/secret"
        answer = wire.ask("POST", f"/images/create?fromImage={name}&tag=1")
    assert answer.status == 404
    assert f"pull access denied for {name}".encode() in answer.body


def test_login(wire: Wire) -> None:
    assert wire.ask("POST", "/auth", {}).status == 400
    body = {"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"}
    assert wire.ask("POST", "/auth", body).status in (500, 503)


def test_search(wire: Wire, client: docker.DockerClient, registry: str, request: pytest.FixtureRequest) -> None:
    name = f"{registry}/team/sought"
    client.images.get(BUSYBOX).tag(name, "1")
    wire.ask("POST", f"/images/{name}/push?tag=1")
    client.images.remove(f"{name}:1")
    answer = wire.ask("GET", f"/images/search?term={registry}/sought&limit=5")
    if "debian" in request.node.name:
        assert answer.status == 503
        assert b"can't be searched" in answer.body
        return
    assert [found["name"] for found in json.loads(answer.body)] == ["team/sought"]
    assert [found["name"] for found in client.images.search(f"{registry}/sought")] == ["team/sought"]
    asked = f"/images/search?term={registry}/sought"
    for stars in ("1", "%C2%B2"):
        assert wire.ask("GET", f'{asked}&filters={{"stars":["{stars}"]}}').body.strip() == b"[]"
    assert wire.ask("GET", asked + "&limit=101").status == 400
    assert wire.ask("GET", asked + '&filters={"x":["1"]}').status == 400
