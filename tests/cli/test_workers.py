"""`shipway workers` against a real server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cli.main import main
from pipeline.protocol import WorkerInfo
from pipeline.settings import Settings
from pipeline.store import open_store
from tests.server.running import running
from tests.server.story import Clock


def test_hosts_are_listed_and_a_lost_one_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data=tmp_path)
    clock = Clock(time.time() - 3600)
    with open_store(settings.database, clock=clock) as store:
        store.register_worker(WorkerInfo(name="web1", labels={"role": "web"}, engine="Shipway Engine 0.1.0"))
        clock.now = time.time() + 3600
        store.register_worker(WorkerInfo(name="web2", labels={"role": "web", "zone": "a"}))

    def shipway(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["workers", *arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    with running(settings) as server:
        monkeypatch.setenv("SHIPWAY_SERVER_URL", server.url)
        _, table, _ = shipway()
        web1, web2 = table.splitlines()[1:]
        assert web1.split()[:3] == ["web1", "lost", "role=web"]
        assert "Shipway Engine 0.1.0" in web1
        assert "role=web, zone=a" in web2
        assert [w["name"] for w in json.loads(shipway("--json")[1])["workers"]] == ["web1", "web2"]

        assert shipway("--forget", "web2") == (1, "", "shipway: worker web2 is online: stop it first\n")
        code, said, _ = shipway("--forget", "web1")
        assert (code, said) == (0, "web1 is forgotten; its worker registers again if it comes back\n")
        assert shipway("--forget", "web1")[0] == 1
        assert [w["name"] for w in json.loads(shipway("--json")[1])["workers"]] == ["web2"]
