"""The same over both registries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.housekeeping import Housekeeping
from deploy.registryclient import HousekeepingError, Refused, RegistryClient
from tests.deploy import registries
from tests.deploy.registries import Pusher
from tests.deploy.test_registryclient import answering


@dataclass
class Lab:
    url: str
    housekeeping: Housekeeping
    kind: str


@pytest.fixture(scope="module", params=["ours", "debian"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    start = getattr(registries, request.param)
    with start(tmp_path_factory.mktemp(request.param)) as url:
        client = RegistryClient(url.removeprefix("http://"))
        yield Lab(url, Housekeeping(client), request.param)
        client.close()


def tags_of(lab: Lab, repository: str) -> dict[str, str]:
    return {tag.name: tag.digest for tag in lab.housekeeping.tags(repository)}


def test_what_is_there(lab: Lab):
    push = Pusher(lab.url, "team/there")
    first = push.image("v1", created="2024-01-01T00:00:00.123456789Z")
    second = push.image("v2", "latest", created="2024-01-02T00:00:00+01:00")
    third = push.image("v3", annotations={"org.opencontainers.image.created": "2024-01-03T00:00:00Z"})
    fourth = push.image("v4", created="1970-01-01T00:00:00Z")
    whole = push.index("all", parts=[first, second])

    assert "team/there" in lab.housekeeping.repositories()
    assert tags_of(lab, "team/there") == {
        "v1": first, "v2": second, "latest": second, "v3": third, "v4": fourth, "all": whole
    }  # fmt: skip
    ages = {image.digest: image.created for image in lab.housekeeping.images("team/there")}
    assert ages[first] == pytest.approx(1704067200.123456)
    assert ages[second] == 1704150000.0
    assert ages[third] == 1704240000.0
    assert ages[fourth] is None, "the date of a reproducible build tells nothing"
    assert ages[whole] == ages[second], "an index is as old as its youngest part"


def test_what_is_not_there(lab: Lab):
    assert lab.housekeeping.tags("nobody") == []
    assert lab.housekeeping.digest("nobody", "v1") is None
    assert not lab.housekeeping.untag("nobody", "v1")
    assert not lab.housekeeping.delete("nobody", f"sha256:{'0' * 64}")


def test_a_catalogue_of_several_pages(lab: Lab):
    """docker-registry gives 100 a page; docker-registry-client reads one."""
    names = [f"pages/r{number:03}" for number in range(105)]
    for name in names:
        Pusher(lab.url, name).image("v1")
    assert [name for name in lab.housekeeping.repositories() if name.startswith("pages/")] == names


def test_a_tag_goes_and_the_image_with_its_last(lab: Lab):
    push = Pusher(lab.url, "tags")
    digest = push.image("v1", "latest")
    other = push.image("v2")
    if lab.kind == "debian":
        with pytest.raises(HousekeepingError, match=rf"tags:v1 is tagged latest too.*delete tags@{digest}"):
            lab.housekeeping.untag("tags", "v1")
        assert tags_of(lab, "tags") == {"v1": digest, "latest": digest, "v2": other}
        assert lab.housekeeping.delete("tags", digest)
    else:
        assert lab.housekeeping.untag("tags", "v1")
        assert tags_of(lab, "tags") == {"latest": digest, "v2": other}
        assert lab.housekeeping.untag("tags", "latest")
    assert lab.housekeeping.digest("tags", digest) is None
    with pytest.raises(Refused, match="is in use"):
        lab.housekeeping.untag("tags", "v2", held={other})
    assert lab.housekeeping.untag("tags", "v2")
    assert tags_of(lab, "tags") == {}
    assert lab.housekeeping.images("tags") == []


def test_retention(lab: Lab):
    push = Pusher(lab.url, "kept")
    days = {day: push.image(f"v{day}", created=f"2024-01-0{day}T00:00:00Z") for day in range(1, 7)}
    undated = push.image("undated")
    released = push.index(parts=[days[2]])
    images = lab.housekeeping.images("kept")
    held = frozenset({days[1], released, f"sha256:{'f' * 64}"})

    told = lab.housekeeping.prune("kept", images, keep=2, keep_digests=held, dry_run=True)
    assert [image.tags for image in told.deleted] == [("v3",), ("v4",)]
    assert len(lab.housekeeping.images("kept")) == 7

    assert lab.housekeeping.prune("kept", images, keep=2, keep_digests=held) == told
    assert set(tags_of(lab, "kept").values()) == {days[1], days[2], days[5], days[6], undated}
    again = lab.housekeeping.prune("kept", images, keep=2, keep_digests=held)
    assert again.deleted == (), "what somebody else deleted is not counted"


@pytest.mark.parametrize("status", [400, 405])
def test_only_the_embedded_registry_shows_repositories(status: int):
    with answering(lambda *_: (status, {}, {})) as address:
        client = RegistryClient(address)
        with pytest.raises(HousekeepingError, match="only the embedded registry can show a repository to everyone"):
            Housekeeping(client).publish("web", public=True)
        client.close()
