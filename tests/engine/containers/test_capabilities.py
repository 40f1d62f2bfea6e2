from __future__ import annotations

import pytest

from engine.containers.capabilities import ALL, DEFAULT, available, decide, normalize
from engine.errors import InvalidInput
from engine.kernel.capabilities import NAMES

WITHOUT_NET_RAW = [name for name in ALL if name in DEFAULT and name != "CAP_NET_RAW"]


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], [name for name in ALL if name in DEFAULT]),
        ([], ["net_raw"], WITHOUT_NET_RAW),
        (["NET_RAW"], ["CAP_NET_RAW"], [name for name in ALL if name in DEFAULT]),
        ([], ["ALL"], []),
        (["SYS_TIME", "CHOWN"], ["all"], ["CAP_CHOWN", "CAP_SYS_TIME"]),
        (["ALL"], ["SYS_ADMIN"], [name for name in ALL if name != "CAP_SYS_ADMIN"]),
        (["ALL"], ["ALL"], list(ALL)),
    ],
)
def test_adding_and_dropping_as_docker_does(add: list[str], drop: list[str], expected: list[str]) -> None:
    assert decide(add, drop, privileged=False) == expected


def test_privileged_is_all_of_them() -> None:
    assert decide([], ["ALL"], privileged=True) == list(ALL)


def test_the_default_set_is_dockers() -> None:
    assert len(DEFAULT) == 14
    assert "CAP_SYS_ADMIN" not in DEFAULT


def test_names_are_the_kernels_in_its_order() -> None:
    assert list(ALL) == NAMES
    assert available() <= set(ALL)


@pytest.mark.parametrize("name", ["", "CAP_", "SYS", "CAP_SYS_ADMIN\n", "CAP_CAP_CHOWN"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="invalid capability"):
        normalize([name])
