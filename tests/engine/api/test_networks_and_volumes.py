from __future__ import annotations

import contextlib
import json

import docker
import pytest

from tests import needs
from tests.engine.api.wire import BUSYBOX, Wire

pytestmark = pytest.mark.kernel


@pytest.fixture
def open_host(client: docker.DockerClient) -> None:
    """Where the host's own rules keep containers apart, as Docker's do and the engine says, it lacks something."""
    for warning in client.info()["Warnings"] or ():
        if "containers of one network" in warning:
            needs.lacking(warning)


@pytest.mark.usefixtures("open_host")
def test_a_network_and_its_containers(client: docker.DockerClient) -> None:
    made = client.networks.create("net", labels={"k": "v"})
    one = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="one", network="net")
    assert client.containers.run(BUSYBOX, "ping -c1 -W5 one", remove=True, network="net")
    other = client.networks.create("other", internal=True)
    other.connect(one, aliases=["uno"])
    assert client.containers.run(BUSYBOX, "ping -c1 -W5 uno", remove=True, network="other")
    one.reload()
    assert set(one.attrs["NetworkSettings"]["Networks"]) == {"net", "other"}
    other.reload()
    assert [found["Name"] for found in other.attrs["Containers"].values()] == ["one"]
    assert other.attrs["Internal"]
    with pytest.raises(docker.errors.APIError, match="already exists in network other"):
        other.connect(one)
    with pytest.raises(docker.errors.APIError, match="has active endpoints"):
        other.remove()
    other.disconnect(one)
    with pytest.raises(docker.errors.APIError, match="is not connected to network other"):
        other.disconnect(one, force=True)
    with pytest.raises(docker.errors.APIError, match="is not connected to network other"):
        other.disconnect(one)
    assert client.networks.list(filters={"label": "k=v"}) == client.networks.list(["net"]) == [made]
    assert client.networks.list(filters={"label!": "k=v", "type": "custom"}) == [other]
    assert client.networks.prune()["NetworksDeleted"] == ["other"]
    assert client.networks.prune()["NetworksDeleted"] is None


@pytest.mark.usefixtures("open_host")
def test_a_link_is_a_name(client: docker.DockerClient) -> None:
    other = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="other")
    owner = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="owner", links={"other": "alias"})
    through = client.containers.run(
        BUSYBOX, ["sleep", "600"], detach=True, name="through", links={"owner/alias": "other"}
    )
    other.rename("another")
    owner.rename("holder")
    assert client.containers.get("holder/alias") == other
    assert client.containers.get("through/other") == other
    owner.reload()
    assert owner.attrs["HostConfig"]["Links"] == ["/another:/holder/alias"]
    names = {one["Id"]: one["Names"] for one in client.api.containers()}
    assert names[other.id] == ["/another", "/holder/alias", "/through/other"]
    assert names[owner.id] == ["/holder"]
    # Whoever links to one that comes back elsewhere is told.
    other.stop(timeout=0)
    client.containers.run(BUSYBOX, ["sleep", "600"], detach=True)
    other.start()
    other.reload()
    address = other.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert f"{address}\talias" in owner.exec_run(["cat", "/etc/hosts"]).output.decode()
    client.api.remove_container("holder/alias", link=True)
    through.remove(force=True)
    assert client.api.containers(filters={"name": "another"})[0]["Names"] == ["/another"]
    for name in ("holder/alias", "holder/other", "none/alias"):
        with pytest.raises(docker.errors.NotFound):
            client.containers.get(name)


def test_links(client: docker.DockerClient) -> None:
    """The way of the default network, which has no names."""
    client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="target")
    made = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="linked", links={"target": "alias"})
    client.networks.create("later").connect(made)
    assert made.exec_run("ping -c1 -W5 alias").exit_code == 0
    client.api.remove_container("linked/alias", link=True)
    assert b"alias" not in made.exec_run("cat /etc/hosts").output
    with pytest.raises(docker.errors.NotFound, match="No such link"):
        client.api.remove_container("linked/alias", link=True)


def test_names_change_with_the_networks(client: docker.DockerClient) -> None:
    """A container knows its neighbours on all its networks, its own links, and nobody else's."""

    def finds(name: str) -> bool:
        return one.exec_run(f"nslookup {name}.").exit_code == 0

    left, right = client.networks.create("left"), client.networks.create("right")
    one = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="one")
    left.connect(one)
    right.connect(one, links={"late": "dear"})
    two = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="two", network="left")
    assert finds("two")
    assert not finds("dear")
    client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="late", network="right")
    assert finds("late")
    assert finds("dear")
    two.rename("new")
    assert finds("new")
    assert not finds("two")
    assert two.exec_run("nslookup dear.").exit_code != 0
    left.disconnect(one)
    assert finds("late")
    assert not finds("new")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"Name": ""}, 400, "invalid network name"),
        ({"Name": "a/b"}, 400, "invalid network name"),
        ({"Name": "a\nb"}, 400, "invalid network name"),
        ({"Name": "bridge"}, 409, "already exists"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}, 400, "invalid subnet"),
        ({"Name": "n", "IPAM": {"Config": [{"AuxiliaryAddresses": {"a": "nonsense"}}]}}, 400, "invalid address"),
        ({"Name": "n", "IPAM": {"Config": [{"AuxiliaryAddresses": {"a": "1.1.1.1"}}]}}, 400, "not in the subnet"),
        ({"Name": "n", "Scope": "swarm"}, 400, "local scope"),
        ({"Name": "n", "EnableIPv4": False}, 400, "without IPv4"),
        ({"Name": "n", "Driver": "overlay"}, 404, 'network driver "overlay"'),
        ({"Name": "n", "Labels": {"a": 1}}, 400, "$.Labels"),
        ({"Name": "n", "Options": {"a": 1}}, 400, "$.Options"),
        ({"Name": "n", "IPAM": {"Options": {"a": 1}}}, 400, "$.IPAM.Options"),
        ({"Name": "n", "IPAM": 5}, 400, "$.IPAM"),
    ],
)
def test_what_is_no_network(wire: Wire, body: dict[str, object], status: int, says: str) -> None:
    answer = wire.ask("POST", "/networks/create", body)
    assert (answer.status, says in answer.message) == (status, True), answer


def test_options_of_the_address_management_are_kept(client: docker.DockerClient) -> None:
    wished = [docker.types.IPAMConfig(options=options) for options in (None, {}, {"a": "b"})]
    made = [client.networks.create(f"net{number}", ipam=ipam) for number, ipam in enumerate(wished)]
    assert [network.attrs["IPAM"]["Options"] for network in made] == [None, None, {"a": "b"}]


def test_auxiliary_addresses_are_no_containers(wire: Wire, client: docker.DockerClient) -> None:
    pool = {"Subnet": "10.234.5.0/29", "Gateway": "10.234.5.1", "AuxiliaryAddresses": {"a": "10.234.5.2"}}
    assert wire.ask("POST", "/networks/create", {"Name": "n", "IPAM": {"Config": [pool]}}).status == 201
    assert wire.ask("GET", "/networks/n").json["IPAM"] == {"Driver": "default", "Options": None, "Config": [pool]}
    one = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, network="n")
    one.reload()
    assert one.attrs["NetworkSettings"]["Networks"]["n"]["IPAddress"] == "10.234.5.3"


def test_predefined_networks_stay(wire: Wire) -> None:
    assert {found["Name"] for found in wire.ask("GET", "/networks").json} >= {"bridge", "host", "none"}
    answer = wire.ask("DELETE", "/networks/bridge")
    assert (answer.status, "cannot be removed" in answer.message) == (403, True)
    assert wire.ask("DELETE", "/networks/missing").message == "network missing not found"


def test_volumes(client: docker.DockerClient) -> None:
    made = client.volumes.create("store", labels={"k": "v"})
    assert client.volumes.create("store").id == made.id
    mounts = {"store": {"bind": "/data", "mode": "rw"}}
    client.containers.run(BUSYBOX, "touch /data/kept", remove=True, volumes=mounts)
    holder = client.containers.create(BUSYBOX, "ls /data", volumes=mounts)
    assert [volume.name for volume in client.volumes.list(filters={"dangling": "false"})] == ["store"]
    with pytest.raises(docker.errors.APIError, match="volume is in use"):
        made.remove()
    holder.start()
    holder.wait()
    assert holder.logs() == b"kept\n"
    holder.remove()
    nameless = client.volumes.create()
    assert client.volumes.prune()["VolumesDeleted"] == [nameless.id], "by default only nameless ones go"
    assert client.volumes.prune({"all": "true"})["VolumesDeleted"] == ["store"]
    with pytest.raises(docker.errors.NotFound, match="no such volume"):
        client.volumes.get("store")


def test_nameless_volumes_are_pruned(client: docker.DockerClient, wire: Wire) -> None:
    nameless, labelled = client.volumes.create(), client.volumes.create("named").name
    assert "com.docker.volume.anonymous" in nameless.attrs["Labels"]
    assert client.volumes.prune()["VolumesDeleted"] == [nameless.name]
    assert json.loads(wire.ask("POST", "/v1.41/volumes/prune").body)["VolumesDeleted"] == [labelled]


def test_a_mounts_labels_are_its_volumes(client: docker.DockerClient) -> None:
    mount = docker.types.Mount("/data", "made", labels={"a": "b"})
    made = client.containers.create(BUSYBOX, "true", mounts=[mount])
    assert client.volumes.get("made").attrs["Labels"] == {"a": "b"}
    asked = {"Type": "volume", "Source": "made", "Target": "/data", "VolumeOptions": {"Labels": {"a": "b"}}}
    assert made.attrs["HostConfig"]["Mounts"] == [asked]
    made.remove()


def test_nameless_volumes_go_with_their_container(client: docker.DockerClient) -> None:
    made = client.containers.run(BUSYBOX, "true", detach=True, auto_remove=True, volumes=["/data"])
    with contextlib.suppress(docker.errors.NotFound):
        made.wait(condition="removed")
    holder = client.containers.create(BUSYBOX, "true", volumes=["/data"])
    assert len(client.volumes.list()) == 1
    holder.remove(v=True)
    assert client.volumes.list() == []


@pytest.mark.parametrize("body", [{"Name": 5}, {"Name": "n", "Labels": {"a": 1}}, {"Name": "n", "Labels": ["a"]}])
def test_what_is_no_volume(wire: Wire, body: dict[str, object]) -> None:
    answer = wire.ask("POST", "/volumes/create", body)
    assert (answer.status, "invalid JSON" in answer.message) == (400, True), answer


@pytest.mark.parametrize("name", ["../x", "a/b", "a\nb", "-x", "x"])
def test_names_of_volumes_as_weapons(client: docker.DockerClient, name: str) -> None:
    with pytest.raises(docker.errors.APIError, match="Invalid volume name"):
        client.volumes.create(name)
