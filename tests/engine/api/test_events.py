from __future__ import annotations

import contextlib
import json
import time

import docker
import pytest

from tests.engine.api.wire import BUSYBOX, Wire

pytestmark = pytest.mark.kernel


def _since(client: docker.DockerClient, at: float, **filters: object) -> list[dict[str, object]]:
    """What happened from then until now."""
    with contextlib.closing(client.events(since=at, until=time.time(), filters=filters, decode=True)) as events:
        return list(events)


def test_a_life_in_events(client: docker.DockerClient) -> None:
    begun = time.time()
    made = client.containers.run(
        BUSYBOX, "sleep 600", detach=True, name="told", labels={"k": "v"}, volumes=["kept:/kept:ro"]
    )
    made.get_archive("/etc/passwd")
    made.put_archive("/tmp", b"\0" * 1024)
    b"".join(made.export())
    made.pause()
    made.unpause()
    made.rename("retold")
    made.kill()
    made.wait()
    image = made.commit("told", "1")
    made.remove()
    client.images.remove("told:1")
    events = _since(client, begun, container=made.id)
    assert [event["Action"] for event in events] == [
        *(
            "create",
            "start",
            "archive-path",
            "extract-to-dir",
            "export",
            "pause",
            "unpause",
            "rename",
            "kill",
            "die",
            "commit",
            "destroy",
        )
    ]
    die = next(event for event in events if event["Action"] == "die")
    attributes = die["Actor"]["Attributes"]  # type: ignore[index]
    assert (attributes["exitCode"], attributes["k"], attributes["image"]) == ("137", "v", BUSYBOX)
    assert (die["status"], die["id"], die["from"]) == ("die", made.id, BUSYBOX)
    assert die["timeNano"] // 10**9 == die["time"]  # type: ignore[operator]
    told = _since(client, begun, type="image")
    assert [(event["Action"], event["Actor"]["ID"]) for event in told] == [  # type: ignore[index]
        ("tag", image.id),
        ("untag", image.id),
        ("delete", image.id),
    ]
    networks = [event["Action"] for event in _since(client, begun, type="network")]
    assert networks == ["connect", "disconnect"]
    client.volumes.prune()
    mount = {"destination": "/kept", "propagation": "", "read/write": "false", "driver": "local", "container": made.id}
    volumes = [(event["Action"], event["Actor"]) for event in _since(client, begun, type="volume")]
    assert volumes == [
        ("create", {"ID": "kept", "Attributes": {"driver": "local"}}),
        ("mount", {"ID": "kept", "Attributes": mount}),
        ("unmount", {"ID": "kept", "Attributes": {"driver": "local", "container": made.id}}),
        ("prune", {"ID": "", "Attributes": {"reclaimed": "0"}}),
    ]
    assert [event["Action"] for event in _since(client, begun, event=["die", "start"])] == ["start", "die"]
    assert _since(client, begun, label="k=w") == []


def test_an_images_events_have_its_labels(client: docker.DockerClient) -> None:
    begun = time.time()
    made = client.containers.create(BUSYBOX, "true")
    changes = ["LABEL k=v", "LABEL name=mine image=mine"]
    image = made.commit("labelled", "1", changes=changes)
    made.remove()
    image.tag("labelled", "2")
    client.images.load(b"".join(image.save()))
    for tag in ("1", "2"):
        client.images.remove(f"labelled:{tag}")
    told = _since(client, begun, type="image", label=["k=v", "image"])
    assert [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in told] == [  # type: ignore[index]
        ("tag", "labelled:1"),
        ("tag", "labelled:2"),
        ("save", image.id),
        ("load", image.id),
        ("untag", "labelled:1"),
        ("untag", "labelled:2"),
    ]
    assert {event["Actor"]["ID"] for event in told} == {image.id}  # type: ignore[index]
    named = _since(client, begun, image="labelled")
    assert [event["Action"] for event in named] == ["tag", "tag", "untag", "untag"]


def test_until_a_time_alone_is_all_that_is_remembered(wire: Wire, client: docker.DockerClient) -> None:
    made = wire.make("told", "true")
    wire.ask("GET", f"/containers/{made}/archive?path=/etc/passwd")
    asked = f'/events?until={time.time()}&filters={{"container":["{made}"]}}'
    told = [json.loads(line)["Action"] for line in wire.ask("GET", asked).body.splitlines()]
    assert told == ["create", "archive-path"]


def test_filters_of_a_name_that_nobody_knows_are_passed_over(wire: Wire) -> None:
    made = wire.make("told", "true")
    asked = f'/events?until={time.time()}&filters={{"container":["{made}"],"x":["y"]}}'
    answer = wire.ask("GET", asked)
    assert answer.status == 200
    assert [json.loads(line)["Action"] for line in answer.body.splitlines()] == ["create"]


def test_nothing_is_lost_once_the_headers_are_out(wire: Wire, client: docker.DockerClient) -> None:
    with wire.stream("GET", '/events?filters={"type":["volume"]}', until=b"\r\n\r\n") as connection:
        wire.ask("POST", "/volumes/create", {"Name": "told"})
        said = b""
        while not said.rstrip().endswith(b"}"):
            said += connection.recv(4096)
    event = json.loads(said[said.index(b"{") : said.rindex(b"}") + 1])
    assert (event["Action"], event["Actor"]["ID"]) == ("create", "told")


@pytest.mark.parametrize("query", ["since=2&until=1", "filters=x", "since=yesterday"])
def test_what_is_no_question(wire: Wire, query: str) -> None:
    assert wire.ask("GET", f"/events?{query}").status == 400
