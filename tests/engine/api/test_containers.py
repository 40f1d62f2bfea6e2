from __future__ import annotations

import json
import threading

import docker
import pytest

from tests.engine.api.wire import BUSYBOX, Wire, frames

pytestmark = pytest.mark.kernel


def _at_once(count: int, work: object) -> list[int]:
    """The statuses of `count` calls that are made at the same time, sorted."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(count)]  # type: ignore[operator]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def test_a_life(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("life", "sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.05; done")

    def does(what: str, status: int, says: str = "") -> None:
        answer = wire.ask("POST", f"/containers/life/{what}")
        assert (answer.status, says in answer.body.decode()) == (status, True), answer

    def is_now(**expected: object) -> None:
        state = wire.ask("GET", "/containers/life/json").json["State"]
        assert {name: state[name] for name in expected} == expected

    is_now(Status="created", Running=False, ExitCode=0, StartedAt="0001-01-01T00:00:00Z")
    does("stop", 304)
    does("kill", 409, f"cannot kill container: life: container {made} is not running")
    does("pause", 409)
    does("start", 204)
    does("start", 304)
    is_now(Status="running", Running=True, Paused=False)
    does("pause", 204)
    does("pause", 409, "is already paused")
    is_now(Status="paused", Running=True, Paused=True)
    answer = wire.ask("DELETE", "/containers/life")
    assert (answer.status, "container is paused" in answer.message) == (409, True)
    does("unpause", 204)
    does("unpause", 409, "is not paused")
    does("kill?signal=NIX", 400, "invalid signal: NIX")
    does("rename?name=lives", 204)
    assert client.containers.get("lives").id == made
    does("restart?t=0", 404)
    assert wire.ask("POST", "/containers/lives/stop").status == 204
    assert client.containers.get("lives").attrs["State"]["ExitCode"] == 3
    assert wire.ask("DELETE", "/containers/lives").status == 204
    assert wire.ask("GET", "/containers/lives/json").message == "No such container: lives"


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["nothing"], 127, 'exec: "nothing": executable file not found in $PATH'),
        (["/nothing"], 127, 'exec: "/nothing": no such file or directory'),
        (["/etc"], 126, 'exec: "/etc": permission denied'),
    ],
)
def test_what_can_not_be_executed(
    wire: Wire, client: docker.DockerClient, argv: list[str], code: int, says: str
) -> None:
    made = wire.make("never", *argv)
    answer = wire.ask("POST", f"/containers/{made}/start")
    assert (answer.status, says in answer.message) == (400, True), answer
    state = client.containers.get(made).attrs["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", code)


def test_a_container_to_be_removed_goes_even_if_it_never_starts(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("never", "nothing", HostConfig={"AutoRemove": True})
    with wire.stream("POST", f"/containers/{made}/wait?condition=removed", until=b"\r\n\r\n") as waiting:
        assert wire.ask("POST", f"/containers/{made}/start").status == 400
        assert b'"StatusCode":127' in waiting.recv(4096)
    assert wire.ask("GET", f"/containers/{made}/json").status == 404


def test_waiting_for_what_comes(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("waits", "sh", "-c", "exit 7")
    assert wire.ask("POST", f"/containers/{made}/wait").json == {"StatusCode": 0}
    with wire.stream("POST", f"/containers/{made}/wait?condition=next-exit", until=b"\r\n\r\n") as waiting:
        wire.ask("POST", f"/containers/{made}/start")
        assert b'{"StatusCode":7}' in waiting.recv(4096)
    assert wire.ask("POST", f"/containers/{made}/wait?condition=x").status == 400


def test_only_a_missing_image_is_not_found(wire: Wire, client: docker.DockerClient) -> None:
    """For that is when clients pull."""

    def create(**config: object) -> tuple[int, str]:
        answer = wire.ask("POST", "/containers/create", {"Image": BUSYBOX, "Cmd": ["true"]} | config)
        return answer.status, answer.message

    assert create(Image="missing:1") == (404, "No such image: missing:1")
    assert create(HostConfig={"NetworkMode": "missing"}) == (400, "network missing not found")
    assert create(HostConfig={"NetworkMode": "container:missing"}) == (400, "No such container: missing")
    assert create(HostConfig={"VolumesFrom": ["missing"]}) == (400, "No such container: missing")
    assert create(HostConfig={"Links": ["missing:x"]})[0] == 400
    answer = wire.ask("POST", "/containers/create?platform=linux/s390x", {"Image": BUSYBOX, "Cmd": ["true"]})
    assert (answer.status, "does not match the specified platform" in answer.message) == (404, True)


@pytest.mark.parametrize(
    ("config", "host", "says"),
    [
        ({}, {"Runtime": "kata"}, "unknown or invalid runtime name: kata"),
        ({}, {"DeviceRequests": [{"Capabilities": [["gpu"]]}]}, 'device driver "" with capabilities: [[gpu]]'),
        ({}, {"StorageOpt": {"speed": "1g"}}, "unknown option 'speed' for --storage-opt"),
        ({}, {"Memory": 4 << 20}, "Minimum memory limit allowed is 6MB"),
        ({}, {"Mounts": [{"Type": "bind", "Source": "/missing", "Target": "/x"}]}, "source path does not exist"),
        ({}, {"RestartPolicy": {"Name": "sometimes"}}, "unknown policy 'sometimes'"),
        ({"WorkingDir": "here"}, {}, "it needs to be an absolute path"),
        ({"StopSignal": "NIX"}, {}, "invalid signal: NIX"),
        ({"Cmd": [], "Entrypoint": []}, {}, "no command specified"),
        ({"Hostname": "a\nb"}, {}, "invalid hostname"),
    ],
)
def test_what_is_refused_rather_than_left_out(
    wire: Wire, config: dict[str, object], host: dict[str, object], says: str
) -> None:
    body = {"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": host} | config
    answer = wire.ask("POST", "/containers/create", body)
    assert (answer.status, says in answer.message) == (400, True), answer


def test_warnings(wire: Wire, client: docker.DockerClient) -> None:
    host = {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}}
    answer = wire.ask("POST", "/containers/create", {"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": host})
    assert answer.json["Warnings"] == ["Published ports are discarded when using host network mode"]


@pytest.mark.parametrize("name", ["../../x", "a b", "a\nb", "-x", "x", "a" * 300, "a/b", "é"])
def test_names_as_weapons(client: docker.DockerClient, name: str) -> None:
    with pytest.raises(docker.errors.APIError, match="only \\[a-zA-Z0-9\\]"):
        client.containers.create(BUSYBOX, "true", name=name)


def test_labels_take_anything(client: docker.DockerClient) -> None:
    labels = {"a\nb": "c\x1b[31m\n", "": "nameless", "Cmd": "x"}
    made = client.containers.create(BUSYBOX, "true", labels=labels)
    assert client.containers.get(made.id).labels == labels
    assert client.containers.list(all=True, filters={"label": ["a\nb"]}) == [made]


def test_what_older_clients_say_by_silence(wire: Wire, client: docker.DockerClient) -> None:
    asked = {"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": {"Annotations": {"a": "b"}}}
    made = json.loads(wire.ask("POST", "/v1.39/containers/create?name=old", asked).body)["Id"]
    host = json.loads(wire.ask("GET", f"/containers/{made}/json").body)["HostConfig"]
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("shareable", "host")
    for version, known in {"1.45": None, "1.46": {"a": "b"}}.items():
        (listed,) = json.loads(wire.ask("GET", f"/v{version}/containers/json?all=1").body)
        assert listed["HostConfig"].get("Annotations") == known
    many = {"Image": BUSYBOX, "NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {}}}}
    answer = wire.ask("POST", "/v1.43/containers/create", many)
    assert (answer.status, answer.message) == (400, "Container cannot be created with multiple network endpoints")


def test_two_at_once(wire: Wire, client: docker.DockerClient) -> None:
    body = {"Image": BUSYBOX, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
    assert _at_once(6, lambda: wire.ask("POST", "/containers/create?name=one", body).status) == [201, *[409] * 5]
    assert _at_once(6, lambda: wire.ask("POST", "/containers/one/start").status) == [204, *[304] * 5]
    removed = _at_once(6, lambda: wire.ask("DELETE", "/containers/one?force=1").status)
    assert removed[0] == 204
    assert set(removed) <= {204, 404}, "whoever comes while it goes may wait for the end of it"
    assert wire.ask("GET", "/containers/one/json").status == 404


def test_what_inspect_shows(wire: Wire, client: docker.DockerClient) -> None:
    """Scripts look for these whether they are set or not: null where Go has null, left out where Go leaves out."""
    made = wire.make("shown", HostConfig={"Memory": 64 << 20, "NetworkMode": "default"})
    shown = wire.ask("GET", f"/containers/{made}/json?size=1").json
    assert shown["Name"] == "/shown"
    assert (shown["Path"], shown["Args"]) == ("sleep", ["600"])
    assert shown["Mounts"] == []
    assert shown["SizeRootFs"] > 0
    host = shown["HostConfig"]
    assert (host["NetworkMode"], host["IpcMode"], host["CgroupnsMode"]) == ("bridge", "private", "private")
    assert (host["MemorySwap"], host["ShmSize"], host["PidsLimit"]) == (128 << 20, 64 << 20, None)
    assert host["Binds"] is host["CapAdd"] is host["SecurityOpt"] is None
    assert "/proc/kcore" in host["MaskedPaths"]
    assert not {"Sysctls", "Mounts", "Tmpfs"} & set(host)
    config = shown["Config"]
    assert config["Volumes"] is config["OnBuild"] is config["Entrypoint"] is None
    assert config["Hostname"] == made[:12]
    assert not {"Healthcheck", "StopSignal", "ExposedPorts"} & set(config)


def test_lists(client: docker.DockerClient) -> None:
    first = client.containers.run(BUSYBOX, ["sh", "-c", "exit 5"], detach=True, name="first", labels={"k": "v"})
    first.wait()
    second = client.containers.run(BUSYBOX, ["sleep", "600"], detach=True, name="second")

    def names(**filters: object) -> list[str]:
        return [found.name for found in client.containers.list(all=True, filters=filters)]

    assert [found.name for found in client.containers.list()] == ["second"]
    assert [found.name for found in client.containers.list(limit=1)] == ["second"]
    assert names() == ["second", "first"]
    assert names(exited=5) == names(status="exited") == names(label="k=v") == names(before="second") == ["first"]
    assert names(ancestor=BUSYBOX, name="sec") == names(since="first") == ["second"]
    summary = client.api.containers(all=True, filters={"name": "first"})[0]
    assert summary["Command"] == "sh -c 'exit 5'"
    assert summary["Status"].startswith("Exited (5)")
    for wrong in ({"status": "x"}, {"x": "y"}):
        with pytest.raises(docker.errors.APIError, match="invalid filter"):
            client.containers.list(filters=wrong)
    pruned = client.containers.prune(filters={"label": "k"})
    assert (pruned["ContainersDeleted"], pruned["SpaceReclaimed"]) == ([first.id], 0)
    assert client.containers.prune(filters={"label": "k"})["ContainersDeleted"] is None
    second.remove(force=True)


def test_containers_of_what_was_made_from_an_image(client: docker.DockerClient) -> None:
    made = client.containers.create(BUSYBOX, "true", name="below")
    image = made.commit("child", "1")
    made.remove()
    made = client.containers.create("child:1", "true", name="above")
    for ancestor, expected in {BUSYBOX: ["above"], "child:1": ["above"], "nothing": []}.items():
        found = client.containers.list(all=True, filters={"ancestor": ancestor})
        assert [one.name for one in found] == expected
    made.remove()
    client.images.remove(image.id)


def test_logs(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.start("logs", "sh", "-c", "echo one; echo two >&2; echo three")
    client.containers.get(made).wait()
    url = f"/containers/{made}/logs?stdout=1"
    both = frames(wire.ask("GET", f"{url}&stderr=1").body)
    assert sorted(both) == [(1, b"one\n"), (1, b"three\n"), (2, b"two\n")]
    assert frames(wire.ask("GET", f"{url}&tail=1").body) == [(1, b"three\n")]
    for every in ("all", "-1", "%C2%B2", "9" * 20):
        assert len(frames(wire.ask("GET", f"{url}&tail={every}").body)) == 2
    assert frames(wire.ask("GET", f"{url}&tail=1&details=1").body) == [(1, b" three\n")]
    assert frames(wire.ask("GET", f"{url}&since=4000000000").body) == []
    ((_, stamped),) = frames(wire.ask("GET", f"{url}&tail=1&timestamps=1").body)
    at, _, text = stamped.partition(b" ")
    assert (len(at), at[-1:], text) == (30, b"Z", b"three\n")
    assert wire.ask("GET", f"{url}&follow=1").headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert wire.ask("GET", f"/v1.41{url}").headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert wire.ask("GET", f"/containers/{made}/logs").status == 400
    assert wire.ask("GET", f"{url}&since=yesterday").status == 400


def test_top_stats_update_and_changes(client: docker.DockerClient) -> None:
    made = client.containers.run(
        BUSYBOX, ["sh", "-c", "touch /new; rm /etc/group; sleep 600"], detach=True, mem_limit="64m"
    )
    top = made.top(ps_args="-o pid,args")
    assert top["Titles"] == ["PID", "COMMAND"]
    stats = made.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] >= stats["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    made.update(mem_limit="32m", memswap_limit="64m", restart_policy={"Name": "always"})
    made.reload()
    host = made.attrs["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]["Name"]) == (32 << 20, "always")
    with pytest.raises(docker.errors.APIError, match="Minimum memory limit"):
        made.update(mem_limit="1m")
    changes = {(change["Path"], change["Kind"]) for change in made.diff()}
    assert changes == {("/new", 1), ("/etc", 0), ("/etc/group", 2)}
    made.kill()
    with pytest.raises(docker.errors.APIError, match="is not running"):
        made.top()
