from __future__ import annotations

import pytest

from deploy.rollback import NothingToReturnTo, UnknownRelease, choose
from pipeline.protocol import Release, ReleaseState
from pipeline.services import NamedService

STATES = {"L": ReleaseState.LIVE, "S": ReleaseState.SUPERSEDED, "F": ReleaseState.FAILED, "R": ReleaseState.ROLLING}


def history(*told: str) -> list[Release]:
    """`S:a` is a superseded release of the image a. The first is number 1; as the store, the newest comes first."""
    made = [
        Release(
            id=f"web-{number}",
            service="web",
            number=number,
            state=STATES[state],
            spec=NamedService(name="web"),
            image=f"web@{image}",
            digest=f"sha256:{image * 64}",
            environment="production",
            run=number,
            created=float(number),
        )
        for number, (state, _, image) in enumerate((word.partition(":") for word in told), 1)
    ]
    return made[::-1]


@pytest.mark.parametrize(
    ("told", "chosen"),
    [
        (("S:a", "L:b"), "web-1"),
        (("S:a", "S:b", "L:c"), "web-2"),
        (("S:a", "F:b", "L:c"), "web-1"),
        (("S:a", "L:b", "F:c"), "web-1"),
        (("S:a", "L:b", "R:c"), "web-1"),
        (("S:a", "S:b", "S:b", "L:b"), "web-1"),
        (("S:a", "S:b", "L:a"), "web-2"),
        (("S:a", "S:b"), "web-2"),
    ],
    ids=[
        "the one before",
        "the last one before",
        "not one that failed",
        "from the live one, not from a failed one",
        "nor from one on its way",
        "not the same image once more",
        "after a return, forward again",
        "the last that served, when none does",
    ],
)
def test_where_it_goes(told: tuple[str, ...], chosen: str):
    assert choose(history(*told)).id == chosen


def test_one_that_is_named():
    releases = history("S:a", "F:b", "L:c")
    assert choose(releases, "web-1").id == choose(releases, "1").id == "web-1"
    assert choose(releases, "3").id == "web-3"
    with pytest.raises(NothingToReturnTo, match="web-2 never served: choose one that did"):
        choose(releases, "2")
    for name in ("web-9", "9"):
        with pytest.raises(UnknownRelease, match="there is no release web-9: see `shipway releases`"):
            choose(releases, name)


@pytest.mark.parametrize("told", [(), ("L:a",), ("F:a", "L:b"), ("S:a", "L:a")])
def test_nowhere_to_go(told: tuple[str, ...]):
    with pytest.raises(NothingToReturnTo, match="no earlier release has served"):
        choose(history(*told))
