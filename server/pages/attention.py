"""What somebody woken at night should read first: what is wrong, why, and what to type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.protocol import HostInfo, ReplicaState, RolloutState
from pipeline.run.states import StageState
from pipeline.views import RunView, ServiceView


@dataclass(frozen=True)
class Notice:
    """One line of the list. `look` is bad, warn or busy."""

    look: str
    what: str
    why: str = ""
    command: str = ""
    link: str = ""
    since: float | None = None
    """Unix seconds."""


def notices(
    services: Sequence[ServiceView], runs: Sequence[RunView], hosts: Sequence[HostInfo], *, broker_ok: bool
) -> list[Notice]:
    """The worst first."""
    found = [*_of_hosts(hosts)]
    if not broker_ok:
        found.append(Notice("bad", "The broker can't be reached", "Nothing new starts until it is back."))
    for service in services:
        found += of_rollout(service)
        found += of_replicas(service)
    for run in runs:
        found += _approvals(run)
    return sorted(found, key=lambda notice: ("bad", "warn", "busy").index(notice.look))


def of_replicas(service: ServiceView) -> Iterator[Notice]:
    """Where fewer serve than should, or one is unhealthy."""
    if service.release is None:
        return
    rolling = service.rollout is not None and service.rollout.finished is None
    for host in service.hosts:
        if not host.online:
            continue  # the host's own notice says it
        bad = [each for each in host.replicas if each.state in (ReplicaState.UNHEALTHY, ReplicaState.EXITED)]
        for each in bad:
            why = each.detail or "its health check fails"
            yield Notice("bad", f"{each.name} on {host.host} is {each.state}", why, link=f"/services/{service.name}")
        missing = service.spec.replicas - len(host.replicas)
        if missing > 0 and not rolling:
            what = f"{service.name} has {len(host.replicas)} of {service.spec.replicas} replicas on {host.host}"
            yield Notice("bad", what, link=f"/services/{service.name}")


def of_rollout(service: ServiceView) -> Iterator[Notice]:
    """How the last rollout stands, unless all went well: then there is nothing to say."""
    rollout = service.rollout
    if rollout is None:
        return
    link = f"/services/{service.name}"
    old = f"{rollout.previous} serves" if rollout.previous else "there was none before it"
    since = rollout.finished or rollout.started
    match rollout.state:
        case RolloutState.FAILED:
            what = f"{rollout.release} failed, and could not be undone everywhere"
            yield Notice("bad", what, rollout.reason, f"shipway rollback {service.name}", link, since)
        case RolloutState.REVERTED:
            yield Notice("warn", f"{rollout.release} was undone: {old}", rollout.reason, "", link, since)
        case RolloutState.REVERTING:
            yield Notice("warn", f"{rollout.release} is being undone", rollout.reason, "", link, since)
        case RolloutState.RUNNING:
            place = f" in place of {rollout.previous}" if rollout.previous else ""
            yield Notice("busy", f"{rollout.release} is being rolled out{place}", link=link, since=since)
        case RolloutState.BAKING:
            back = f": should it fail, {rollout.previous} returns" if rollout.previous else ""
            yield Notice("busy", f"{rollout.release} serves and is watched{back}", link=link, since=since)


def _of_hosts(hosts: Sequence[HostInfo]) -> Iterator[Notice]:
    for host in hosts:
        if host.state == "lost":
            yield Notice(
                "bad", f"{host.name} is silent", "Its worker sends no heartbeat; what runs there is not known."
            )
        elif not host.engine_ok:
            yield Notice(
                "bad", f"The engine of {host.name} does not answer", "Containers that run there go on running."
            )


def _approvals(run: RunView) -> Iterator[Notice]:
    for stage in run.stages:
        if stage.state is StageState.WAITING:
            yield Notice(
                "warn",
                f"{stage.name} of run {run.id} waits for approval",
                run.message or run.title,
                f"shipway approve {run.id}/{stage.name}",
                f"/runs/{run.id}",
            )
