"""`shipway releases` against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.cli.conftest import Shipway
from tests.server.conftest import night


def test_each_release_tells_how_it_ended_when_and_by_whom(
    shipway: Shipway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with night(Settings(data=tmp_path / "server")) as server:
        monkeypatch.setenv("SHIPWAY_SERVER_URL", server.url)
        monkeypatch.setenv("SUDO_USER", "ada")
        heading, *rows = shipway("releases", "web").out.splitlines()
        assert heading.split()[:6] == ["RELEASE", "STATE", "OUTCOME", "WHEN", "TOOK", "WHO"]
        assert [row.split()[:3] for row in rows[-3:]] == [
            ["web-3", "failed", "reverted"],
            ["web-2", "live", "done"],
            ["web-1", "superseded", "done"],
        ]
        assert "/healthz answered 500" in rows[0]
        newest = server.api("/services/web/releases")["releases"][0]
        assert newest["author"] in newest["who"]
        assert newest["who"] in rows[0]
        assert newest["digest"][:19] in rows[0]
        shipway("rollback", "web", "--detach")
        assert server.api("/runs", limit=1)["runs"][0]["author"] == "ada"
