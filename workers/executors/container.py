"""Shell lines in a container of an image: what `test` and `run` stages do.

The container's own process only waits. The lines are an exec in it, so that their environment, secrets among
it, is no part of the container's configuration: a snapshot then holds what the lines did, and the image's own
command, environment and user.
"""

from __future__ import annotations

import json
import tarfile
from contextlib import ExitStack
from typing import Any

import requests
from docker.errors import DockerException
from docker.types import Ulimit
from urllib3.exceptions import HTTPError

from deploy.releases import STAGE_LABELS
from pipeline.plan.models import ContainerSpec
from pipeline.protocol import Artifact, Outputs
from workers.engine import discard, ensure_image, explained, kill
from workers.engine import execute as execute_in
from workers.executors import artifacts, sides
from workers.executors.base import StageFailed, Work
from workers.keeping import held
from workers.tarstream import stream

_PIDS = 4096
"""Processes and threads, when the stage names no limit."""
_WAITING = ["/bin/sh", "-c", "read -r _"]
"""Blocks for ever on an open stdin, with what any shell has built in."""


def execute(work: Work) -> Outputs:
    """See the package."""
    spec = work.claim.spec
    assert isinstance(spec, ContainerSpec)
    with ExitStack() as stack:
        with work.phase("pull"):
            image = ensure_image(work.engine, spec.image, work.log.say, work.lease.check)
        network = sides.start(work, spec, stack)
        with work.phase("create"), explained("container"):
            container = _create(work, spec, image, network)
            stack.callback(discard, work.engine, container)
            work.lease.on_stop(lambda: kill(work.engine, container))
            if spec.source is not None:
                _put_source(work, container, spec.source)
        with work.phase("start"), explained("container"):
            work.lease.check()
            work.engine.api.start(container)
        code = _run(work, spec, container)
        work.lease.check()
        outputs = _keep(work, spec, container, image, stack)
        if code:
            raise StageFailed(_ending(work, container, code), exit_code=code, outputs=outputs)
    return outputs


def _create(work: Work, spec: ContainerSpec, image: Any, network: str | None) -> str:
    limits = spec.resources
    made = work.engine.containers.create(
        image=image.id,
        entrypoint=_WAITING,
        command=[],
        name=work.name(),
        hostname=work.claim.stage.split(" ")[0][:63],
        stdin_open=True,
        labels=work.labels,
        network=network or ("none" if spec.network == "none" else None),
        security_opt=["no-new-privileges"],
        mem_limit=limits.memory,
        memswap_limit=limits.memory,
        nano_cpus=None if limits.cpus is None else round(limits.cpus * 1e9),
        pids_limit=limits.pids or _PIDS,
        ulimits=[Ulimit(name="core", soft=0, hard=0)],
    )
    return str(made.id)


def _put_source(work: Work, container: str, target: str) -> None:
    """A copy of the checkout at the path; parents are made."""
    with work.phase("checkout"), work.workspaces.open(work.claim.attempt, work.claim.source) as files:
        archive = stream(files, target.strip("/") or ".", _as_root, work.lease.check)
        work.engine.api.put_archive(container, "/", archive)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "/.git/" in f"/{member.name}/":
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _run(work: Work, spec: ContainerSpec, container: str) -> int:
    """Runs the lines, their output on its way while they run; gives their exit code."""
    code = 137
    with work.phase("run"), explained("container"):
        try:
            for news in execute_in(
                work.engine,
                container,
                ["/bin/sh", "-e", "-c", "\n".join(spec.run)],
                environment={**work.claim.env, **work.claim.secrets},
                user=spec.user or "",
                workdir=spec.workdir or spec.source,
            ):
                if isinstance(news, int):
                    code = news
                else:
                    work.log.write(*news)
        except (DockerException, requests.RequestException, HTTPError, OSError):
            work.lease.check()
            raise
        work.log.flush("stdout")
        work.log.flush("stderr")
        work.lease.check()
    return code


def _keep(work: Work, spec: ContainerSpec, container: str, image: Any, stack: ExitStack) -> Outputs:
    """What outlives the container."""
    kept: tuple[Artifact, ...] = ()
    if spec.artifacts:
        folder = stack.enter_context(held(work.artifacts / work.claim.attempt))
        kept = artifacts.collect(work, spec, container, folder)
    if not spec.snapshot:
        return Outputs(artifacts=kept)
    with work.phase("snapshot"), explained("snapshot"):
        snapshot = _commit(work, container, image)
    work.log.say(f"snapshot {snapshot[7:19]}")
    return Outputs(snapshot=snapshot, image=snapshot, image_id=snapshot, artifacts=kept)


def _commit(work: Work, container: str, image: Any) -> str:
    """The container's files as an image that starts as its own image does, labelled with where it is from."""
    config: dict[str, Any] = image.attrs.get("Config") or {}
    run = work.claim.run
    labels = {
        **dict.fromkeys((*work.claim.labels, *STAGE_LABELS), ""),
        **(config.get("Labels") or {}),
        "shipway.tested.by": work.claim.attempt,
        "shipway.tested.image": str(image.id),
        "org.opencontainers.image.revision": run.sha,
    }
    changes = [
        f"ENTRYPOINT {json.dumps(config.get('Entrypoint') or [])}",
        f"CMD {json.dumps(config.get('Cmd') or [])}",
        *(f"LABEL {json.dumps(key)}={json.dumps(value)}" for key, value in sorted(labels.items())),
    ]
    made = work.engine.containers.get(container).commit(
        message=f"{run.pipeline} {run.sha[:12]}: {work.claim.stage}", author="shipway", changes=changes
    )
    return str(made.id)


def _ending(work: Work, container: str, code: int) -> str:
    if code != 137:
        return f"the lines ended with exit code {code}"
    with explained("container"):
        state = work.engine.containers.get(container).attrs["State"]
    if state.get("OOMKilled"):
        return "out of memory: raise the stage's resources.memory, or use less (exit code 137)"
    return "the lines were killed (exit code 137)"
