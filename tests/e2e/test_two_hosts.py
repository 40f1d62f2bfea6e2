"""One service over two hosts, each with an engine and a worker of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from scripts.story.visitor import Visitor
from tests.e2e.cluster import PUBLISH, Cluster, running
from tests.e2e.hosts import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.redis, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as cluster:
        cluster.repository.create(f"{cluster.url}/hooks/generic", cluster.registry, PUBLISH)
        definition = cluster.repository.read("pipelines.yaml")
        cluster.repository.write("pipelines.yaml", definition.replace("  web:\n    replicas", _ON_WEB_HOSTS, 1))
        commit, _ = cluster.repository.push("Version 1")
        run = cluster.ended(cluster.run_of(commit))
        assert run["state"] == "passed", run
        yield cluster


_ON_WEB_HOSTS = "  web:\n    hosts: {role: web}\n    replicas"


def test_a_release_reaches_both_hosts_and_no_request_fails(cluster: Cluster) -> None:
    visitors = [Visitor(PUBLISH, host=address) for address in cluster.lan.addresses]
    for visitor in visitors:
        visitor.start()
    try:
        for visitor in visitors:
            wait_for(lambda visitor=visitor: visitor.versions == ["1"], "version 1 on each host")
        cluster.repository.write("VERSION", "2\n")
        commit, _ = cluster.repository.push("Version 2")
        run = cluster.ended(cluster.run_of(commit))
        for visitor in visitors:
            wait_for(lambda visitor=visitor: visitor.versions[-1] == "2", "version 2 on each host")
    finally:
        for visitor in visitors:
            visitor.stop()
    assert run["state"] == "passed", run
    assert [visitor.failures for visitor in visitors] == [[], []]
    for index in (0, 1):
        assert len(cluster.replicas(index)) == 2
    images = {each.attrs["Image"] for index in (0, 1) for each in cluster.engine(index).containers.list()}
    assert len(images) == 1, "both hosts run the very same image"


def test_a_release_that_fails_leaves_both_hosts_as_they_were(cluster: Cluster) -> None:
    before = [cluster.replicas(index) for index in (0, 1)]
    dockerfile = cluster.repository.read("Dockerfile")
    good = "GREETINGS=/srv/greetings.txt"
    visitors = [Visitor(PUBLISH, host=address) for address in cluster.lan.addresses]
    for visitor in visitors:
        visitor.start()
    try:
        cluster.repository.write("VERSION", "9\n")
        cluster.repository.write("Dockerfile", dockerfile.replace(good, "GREETINGS=/srv/greetings.yaml"))
        commit, _ = cluster.repository.push("Version 9")
        run = cluster.ended(cluster.run_of(commit))
    finally:
        for visitor in visitors:
            visitor.stop()
        cluster.repository.write("Dockerfile", dockerfile)
    assert run["state"] == "failed"
    reasons = {stage["name"]: stage["reason"] for stage in run["stages"]}
    assert "rolled back" in reasons["production"], reasons
    assert [cluster.replicas(index) for index in (0, 1)] == before
    for visitor in visitors:
        assert visitor.failures == []
        assert "9" not in visitor.versions


def test_a_worker_and_an_engine_killed_in_a_rollout_cost_only_time(cluster: Cluster) -> None:
    cluster.repository.write("VERSION", "3\n")
    commit, _ = cluster.repository.push("Version 3")
    number = cluster.run_of(commit)

    def rolling() -> bool:
        stages = {stage["name"]: stage["state"] for stage in cluster.get(f"/runs/{number}")["stages"]}
        return stages["production"] in {"running", "passed", "failed"}

    wait_for(rolling, "the rollout's begin", 60)
    for name, process in list(cluster.processes.running):
        if name in ("worker-two", "engine-two"):
            process.send_signal(signal.SIGKILL)
            process.wait()
            cluster.processes.running.remove((name, process))
    cluster.start_engine(1)
    cluster.await_engine(1)
    cluster.start_worker(1)
    run = cluster.ended(number, 120)
    wanted = "3" if run["state"] == "passed" else "2"

    def same_everywhere() -> bool:
        visitors = [Visitor(PUBLISH, host=address) for address in cluster.lan.addresses]
        return all(visitor.ask().version == wanted for visitor in visitors for _ in range(4))

    wait_for(same_everywhere, f"version {wanted} on both hosts: all new or all old", 60)
