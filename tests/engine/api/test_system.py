from __future__ import annotations

import docker
import pytest

from tests.engine.api.wire import BUSYBOX, Wire

pytestmark = pytest.mark.kernel


def test_ping_tells_which_builder_and_which_api(wire: Wire) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        answer = wire.ask(method, "/_ping")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Builder-Version"] == "1"
        assert answer.headers["Api-Version"] == "1.47"
        assert answer.headers["Ostype"] == "linux"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1.24/version", 200, ""),
        ("/v1.47/version", 200, ""),
        ("/version", 200, ""),
        ("/v1.20/version", 400, "client version 1.20 is too old"),
        ("/v1.99/version", 400, "client version 1.99 is too new"),
        ("/nothing", 404, "page not found"),
        ("/swarm", 503, "This node is not a swarm manager"),
        ("/plugins", 200, ""),
        ("/plugins/x/json", 404, 'plugin "x" not found'),
    ],
)
def test_versions_and_what_is_not_there(wire: Wire, path: str, status: int, says: str) -> None:
    answer = wire.ask("GET", path)
    assert answer.status == status
    if says:
        assert says in answer.message


def test_info_counts_what_there_is(client: docker.DockerClient) -> None:
    client.containers.create(BUSYBOX, "true")
    running = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True)
    paused = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True)
    paused.pause()
    info = client.info()
    counted = ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped")
    assert [info[name] for name in counted] == [3, 1, 1, 1]
    assert info["Driver"] == "overlay2"
    assert info["OSType"] == "linux"
    assert {"shipway", "runc"} <= set(info["Runtimes"])
    assert "name=seccomp,profile=builtin" in info["SecurityOptions"]
    assert client.version()["ApiVersion"] == "1.47"
    running.remove(force=True)


def test_disk_usage_counts_shared_layers_once(client: docker.DockerClient) -> None:
    container = client.containers.create(BUSYBOX, ["sh", "-c", "head -c 100000 /dev/zero > /zeros"])
    container.start()
    container.wait()
    client.api.commit(container.id, "usage", "1")
    shown = client.df()
    base, snapshot = (_named(shown["Images"], name) for name in (BUSYBOX, "usage:1"))
    assert base["SharedSize"] == base["Size"] == snapshot["SharedSize"]
    assert snapshot["Size"] == base["Size"] + 100_000
    assert shown["LayersSize"] >= snapshot["Size"]
    assert base["Containers"] == 1
    assert shown["Containers"][0]["SizeRw"] == 100_000
    volume = client.volumes.create("usage")
    assert client.df()["Volumes"][0]["UsageData"]["RefCount"] == 0
    volume.remove()
    client.images.remove("usage:1")


def _named(images: list[dict[str, object]], name: str) -> dict[str, object]:
    return next(image for image in images if name in image["RepoTags"])  # type: ignore[operator]
