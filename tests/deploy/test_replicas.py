"""A service's containers on a real engine."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import docker
import pytest

from deploy.errors import EngineError, ReplicaFailed
from deploy.replicas import Replicas
from pipeline.services import Health
from scripts.baseimages import BUSYBOX
from tests.deploy import registries
from tests.deploy.services import PORT, release
from tests.patience import wait_for

pytestmark = pytest.mark.kernel


def test_one_comes_serves_and_goes(replicas: Replicas):
    target = release(1)
    replicas.start(target, 1, {})
    replicas.start(target, 1, {})
    (found,) = replicas.find("web")
    assert (found.name, found.service, found.release, found.running) == ("web-1-1", "web", "web-1", True)
    assert (found.restarts, found.port) == (0, PORT)
    assert found.backend is not None
    assert found.backend.network is not None
    assert ip_address(found.backend.address) in ip_network(found.backend.network)
    probe = replicas.probe(found, target.service.health)
    wait_for(lambda: probe() is None, "the answer", 15)
    assert replicas.ended("web-1-1") is None
    assert replicas.last_words("web-1-1") == ["web-1 serves"]
    replicas.remove("web-1-1")
    replicas.remove("web-1-1")
    assert replicas.get("web-1-1") is None
    assert replicas.find() == []
    assert replicas.ended("web-1-1") == "its container is gone"
    assert replicas.last_words("web-1-1") == []


def test_services_do_not_see_each_other(replicas: Replicas):
    replicas.start(release(1), 1, {})
    replicas.start(release(4, name="api"), 1, {})
    assert [found.name for found in replicas.find("web")] == ["web-1-1"]
    assert [found.name for found in replicas.find()] == ["api-4-1", "web-1-1"]


def test_a_name_that_is_taken(replicas: Replicas, engine: docker.DockerClient):
    stranger = engine.containers.create(BUSYBOX, ["true"], name="web-1-1")
    try:
        with pytest.raises(ReplicaFailed, match="web-1-1: a container of that name exists that is not ours"):
            replicas.start(release(1), 1, {})
    finally:
        stranger.remove()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/bin/sh", "-c", "exit 3"], "it exited with 3"),
        (["/no/such/program"], "web-1-1: "),
    ],
)
def test_one_that_does_not_live(replicas: Replicas, command: list[str], words: str):
    target = release(1, command=command)
    try:
        replicas.start(target, 1, {})
    except ReplicaFailed as error:
        assert words in str(error)  # noqa: PT017
        return
    wait_for(lambda: (replicas.ended("web-1-1") or "").startswith(("it exited", "it ended")), "the end", 15)
    # The engine's restart policy may have it between two lives.
    wait_for(lambda: replicas.ended("web-1-1") == words, "the last word of the end", 15)


def test_a_restart_is_seen(replicas: Replicas, engine: docker.DockerClient):
    replicas.start(release(1), 1, {})
    wait_for(lambda: replicas.last_words("web-1-1"), "the last words", 15)
    assert replicas.ended("web-1-1") is None
    engine.containers.get("web-1-1").exec_run(["kill", "1"], detach=True)
    wait_for(lambda: replicas.ended("web-1-1") == "it ended and was started again", "the next start", 15)


def test_probes(replicas: Replicas):
    replicas.start(release(1), 1, {})
    found = replicas.get("web-1-1")
    assert found is not None
    by_port = replicas.probe(found, None)
    wait_for(lambda: by_port() is None, "the answer", 15)
    good = replicas.probe(found, Health(cmd=("test -d /tmp/www",)))
    assert good() is None
    bad = replicas.probe(found, Health(cmd=("echo no harbour; exit 4",)))
    assert bad() == "/bin/sh -c 'echo no harbour; exit 4' exited with 4: no harbour"
    elsewhere = replicas.probe(found, Health(tcp=True, port=PORT + 1))
    assert elsewhere() == f"port {PORT + 1}: connection refused"


def test_one_without_a_port_is_asked_whether_it_lives(replicas: Replicas):
    replicas.start(release(1, port=None, health=None, command=["sleep", "1000"]), 1, {})
    found = replicas.get("web-1-1")
    assert found is not None
    assert found.backend is None
    assert replicas.probe(found, None)() is None
    replicas.remove("web-1-1", grace=0)
    assert replicas.probe(found, None)() == "its container is gone"


def test_secrets_reach_the_process_alone(replicas: Replicas, engine: docker.DockerClient):
    replicas.start(release(1, secrets=["TOKEN"]), 1, {"TOKEN": "tide", "OTHER": "x"})
    _, said = engine.containers.get("web-1-1").exec_run(["env"])
    assert b"TOKEN=tide\n" in said
    assert b"OTHER" not in said


def test_an_image_by_its_digest(replicas: Replicas, engine: docker.DockerClient, tmp_path: Path):
    with registries.ours(tmp_path) as url:
        name = f"{url.removeprefix('http://')}/web"
        engine.images.get(BUSYBOX).tag(name, "v1")
        engine.images.push(name, tag="v1")
        (digest,) = [d for d in engine.images.get(f"{name}:v1").attrs["RepoDigests"] if d.startswith(name)]
        engine.images.remove(f"{name}:v1")
        replicas.pull(digest)
        assert engine.images.get(digest).id
        missing = f"{name}@sha256:{'0' * 64}"
        with pytest.raises(EngineError, match=f"image {missing}: "):
            replicas.pull(missing)
    replicas.pull(digest)
    engine.images.remove(digest)


def test_an_engine_that_is_not_there():
    nobody = docker.DockerClient(f"tcp://127.0.0.1:{registries.free_port()}", version="1.43")
    with pytest.raises(EngineError, match="the engine can't be reached"):
        Replicas(nobody).find()
    nobody.close()
