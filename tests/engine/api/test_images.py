from __future__ import annotations

import io
from collections.abc import Iterator

import docker
import pytest

from tests.engine.api.wire import BUSYBOX, Wire

pytestmark = pytest.mark.kernel


def _tags(client: docker.DockerClient, **filters: object) -> set[str]:
    return {tag for image in client.api.images(filters=filters) for tag in image["RepoTags"]}


@pytest.fixture
def snapshot(client: docker.DockerClient) -> Iterator[docker.models.images.Image]:
    """An image on top of busybox, called `snapshot:1`."""
    container = client.containers.run(BUSYBOX, ["sh", "-c", "echo mark > /mark"], detach=True)
    container.wait()
    image = container.commit(
        "snapshot", "1", message="said", author="me", changes=['CMD ["cat", "/mark"]', "ENV A=b", "LABEL k=v"]
    )
    container.remove()
    yield image
    for tag in _tags(client, reference="snapshot"):
        client.images.remove(tag)


def test_a_commit(client: docker.DockerClient, snapshot: docker.models.images.Image) -> None:
    assert client.containers.run("snapshot:1", remove=True) == b"mark\n"
    shown = snapshot.attrs
    assert (shown["Comment"], shown["Author"]) == ("said", "me")
    assert (shown["Config"]["Env"], shown["Config"]["Labels"]) == (["A=b"], {"k": "v"})
    assert (shown["Config"]["User"], shown["Config"]["Volumes"], shown["Config"]["Tty"]) == ("", None, False)
    assert len(shown["RootFS"]["Layers"]) == 2
    top, below = snapshot.history()
    assert (top["CreatedBy"], top["Comment"], top["Tags"]) == ("sh -c echo mark > /mark", "said", ["snapshot:1"])
    assert below["Id"] == client.images.get(BUSYBOX).id


def test_a_commit_refuses_what_is_no_change(client: docker.DockerClient) -> None:
    container = client.containers.create(BUSYBOX, "true")
    for change in ("NIX x", "RUN x"):
        with pytest.raises(docker.errors.APIError, match="is not a valid change command"):
            container.commit(changes=[change])
    with pytest.raises(docker.errors.APIError, match="must be lowercase"):
        container.commit("Bad")


def test_names(client: docker.DockerClient, snapshot: docker.models.images.Image) -> None:
    assert snapshot.tag("snapshot", "2")
    before = client.api.inspect_image(snapshot.id)["Metadata"]["LastTagTime"]
    assert snapshot.tag("snapshot:1", "2"), "the tag by itself is meant"
    assert client.api.inspect_image(snapshot.id)["Metadata"]["LastTagTime"] > before > snapshot.attrs["Created"]
    assert _tags(client, reference="snapshot") == {"snapshot:1", "snapshot:2"}
    assert _tags(client, reference="snapshot:2") == {"snapshot:2"}, "only names that fit are shown"
    assert _tags(client, reference="*shot:?") == {"snapshot:1", "snapshot:2"}
    assert _tags(client, label="k=v") == _tags(client, since=BUSYBOX)
    assert BUSYBOX in _tags(client, before="snapshot:1")
    with pytest.raises(docker.errors.APIError, match="must be lowercase"):
        snapshot.tag("Bad")
    with pytest.raises(docker.errors.ImageNotFound, match="No such image: missing:latest"):
        client.images.get("missing")
    with pytest.raises(docker.errors.APIError, match="invalid filter 'x'"):
        client.images.list(filters={"x": "y"})


def test_what_older_clients_look_for(wire: Wire, snapshot: docker.models.images.Image) -> None:
    old, new = (wire.ask("GET", f"/v{version}/images/snapshot:1/json").json for version in ("1.44", "1.45"))
    assert old["ContainerConfig"] == old["Config"] == new["Config"]
    assert "ContainerConfig" not in new


def test_what_is_used_stays(wire: Wire, client: docker.DockerClient, snapshot: docker.models.images.Image) -> None:
    container = client.containers.create("snapshot:1")
    answer = wire.ask("DELETE", "/images/snapshot:1")
    assert (answer.status, container.short_id in answer.message) == (409, True)
    container.remove()
    assert wire.ask("DELETE", "/images/snapshot:1").json == [
        {"Untagged": "snapshot:1"},
        {"Deleted": snapshot.id},
    ]
    assert wire.ask("DELETE", "/images/snapshot:1").status == 404


def test_save_and_load(client: docker.DockerClient, snapshot: docker.models.images.Image) -> None:
    saved = b"".join(snapshot.save(named="snapshot:1"))
    client.images.remove("snapshot:1")
    (loaded,) = client.images.load(saved)
    assert (loaded.id, loaded.tags) == (snapshot.id, ["snapshot:1"])
    for broken in (b"junk", saved[: len(saved) // 2]):
        with pytest.raises(docker.errors.ImageLoadError, match="malformed tar"):
            client.images.load(broken)
    with pytest.raises(docker.errors.APIError, match="No such image"):
        b"".join(client.api.get_image("missing"))


def test_export_and_import(client: docker.DockerClient, snapshot: docker.models.images.Image) -> None:
    container = client.containers.create("snapshot:1")
    root = io.BytesIO(b"".join(container.export()))
    client.api.import_image_from_data(root.getvalue(), "imported", "1", changes=['CMD ["cat", "/mark"]'])
    assert client.containers.run("imported:1", remove=True) == b"mark\n"
    assert len(client.images.get("imported:1").attrs["RootFS"]["Layers"]) == 1
    client.images.remove("imported:1")
    container.remove()


def test_prune_takes_what_has_no_name(client: docker.DockerClient, snapshot: docker.models.images.Image) -> None:
    container = client.containers.create("snapshot:1")
    nameless = container.commit(changes=["LABEL nameless=yes"])
    container.remove()
    pruned = client.images.prune(filters={"label": "nameless"})
    assert pruned["ImagesDeleted"] == [{"Deleted": nameless.id}]
    assert client.images.prune(filters={"label": "nameless"})["ImagesDeleted"] is None
    assert "snapshot:1" in _tags(client)
