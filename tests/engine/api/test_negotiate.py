from __future__ import annotations

import pytest

from engine.api.errors import VersionTooOld
from engine.api.negotiate import NEWEST, split


def test_with_and_without_a_version() -> None:
    assert split("/v1.41/containers/json") == ((1, 41), "/containers/json")
    assert split("/containers/json") == (NEWEST, "/containers/json")
    assert split("/v1.41") == ((1, 41), "/")
    assert split("/version") == (NEWEST, "/version")
    assert split("/volumes/v1.41/x") == (NEWEST, "/volumes/v1.41/x")


@pytest.mark.parametrize(("path", "says"), [("/v1.12/info", "too old"), ("/v1.99/info", "too new")])
def test_what_is_not_spoken(path: str, says: str) -> None:
    with pytest.raises(VersionTooOld, match=says):
        split(path)
