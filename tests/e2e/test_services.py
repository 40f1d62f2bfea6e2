"""Services of a running system, used as their owners do: with git, with `shipway`, with a browser's requests."""

from __future__ import annotations

import re

import pytest
import requests

from scripts.story.visitor import ask
from tests.e2e.conftest import Up
from tests.e2e.hosts import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.redis, pytest.mark.timeout(240)]


def test_a_python_service_is_built_tested_and_answers(up: Up) -> None:
    assert up.push(up.api, "Count words") == "passed"
    published = re.search(r"publish: (\d+)", up.api.read("pipelines.yaml"))
    assert published is not None
    address = f"http://127.0.0.1:{published[1]}/"
    assert requests.get(address, timeout=5).json()["version"] == up.api.read("VERSION").strip()
    assert requests.post(address, data="to be or not to be", timeout=5).json()


def test_what_was_tested_is_what_runs(up: Up) -> None:
    """The chain commit → image → test attempt → release, by digest."""
    release = up.system.get("/services/web")["release"]
    stages = {stage["name"]: stage for stage in up.system.get(f"/runs/{release['run']}")["stages"]}
    assert release["commit"] == up.first_commit
    assert stages["publish"]["outputs"]["digest"] == release["digest"]
    assert stages["unit"]["outputs"]["snapshot"] is not None
    assert release["image"].endswith(f"@{release['digest']}")


def test_going_back_is_one_command(up: Up) -> None:
    up.web.write("VERSION", "2\n")
    assert up.push(up.web, "Version 2") == "passed"
    wait_for(lambda: ask(up.system.ports.publish).version == "2", "version 2")
    done = up.system.command("rollback", "web")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ask(up.system.ports.publish).version == "1"
    services = up.system.command("services").stdout
    assert "2/2 healthy" in services
    assert up.first_commit[:12] in services


def test_a_broken_definition_is_told_with_every_place(up: Up) -> None:
    definition = up.web.read("pipelines.yaml")
    try:
        up.web.write(
            "pipelines.yaml", definition.replace("replicas: 2", "replica: 2").replace("needs: unit", "needs: u")
        )
        assert up.push(up.web, "A slip").startswith("failed")
    finally:
        up.web.write("pipelines.yaml", definition)
    run = up.system.get("/runs")["runs"][0]
    assert "pipelines.yaml:3:" in run["reason"]
    assert "replica" in run["reason"]
    assert "needs" in run["reason"]


def test_a_wrong_signature_is_refused_and_nothing_stored(up: Up) -> None:
    before = up.system.get("/runs")["runs"][0]["id"]
    answer = requests.post(
        f"{up.system.url}/hooks/generic",
        json={"repository": "web", "ref": "refs/heads/main", "after": "0" * 40},
        headers={"X-Shipway-Signature-256": "sha256=" + "0" * 64},
        timeout=5,
    )
    assert answer.status_code == 401
    assert up.system.get("/runs")["runs"][0]["id"] == before
