"""Dockerfile → image, by the engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import requests
from docker.api.build import process_dockerfile
from docker.errors import DockerException
from docker.utils.build import tar as pack

from pipeline.errors import SourceError
from pipeline.plan.models import BuildSpec
from pipeline.protocol import Outputs
from workers.engine import abort, explained
from workers.executors.base import StageFailed, Work
from workers.workspace import inside


def execute(work: Work) -> Outputs:
    """See the package. The image stays in this worker's engine."""
    spec = work.claim.spec
    assert isinstance(spec, BuildSpec)
    with ExitStack() as stack:
        with work.phase("checkout"):
            opened = work.workspaces.open(work.claim.attempt, work.claim.source)
            files = stack.enter_context(opened)
        image = _build(work, spec, files)
    return Outputs(image=image, image_id=image)


def _build(work: Work, spec: BuildSpec, files: Path) -> str:
    context = inside(files, spec.context)
    if not context.is_dir():
        raise StageFailed(f"{spec.context}: there is no such folder in the checkout", retryable=False)
    if not inside(context, spec.dockerfile).is_file():
        raise StageFailed(f"{spec.dockerfile}: there is no such file in {spec.context}", retryable=False)
    work.lease.check()
    with work.phase("build"), explained("build"):
        return _converse(work, spec, context)


def _converse(work: Work, spec: BuildSpec, context: Path) -> str:
    api: Any = work.engine.api
    ignore = _ignored(context, spec.dockerfile)
    dockerfile = process_dockerfile(spec.dockerfile, str(context))
    params: dict[str, Any] = {
        "dockerfile": dockerfile[0],
        "rm": 1,
        "forcerm": 1,
        "nocache": int(not spec.cache),
        "pull": int(spec.pull),
        "networkmode": spec.network,
        "buildargs": json.dumps(spec.args),
        "labels": json.dumps(_labels(work, spec)),
    }
    if spec.target:
        params["target"] = spec.target
    if spec.platform:
        params["platform"] = spec.platform
    if spec.shared_cache:
        params["cachefrom"] = params["cacheto"] = json.dumps([spec.shared_cache])
    with closing(pack(context, exclude=ignore, dockerfile=dockerfile, gzip=False)) as archive:
        response = api._post(
            api._url("/build"),
            data=archive,
            params=params,
            headers={"Content-Type": "application/x-tar", **_secrets(work), **_logins(api)},
            stream=True,
            timeout=api.timeout,
        )
    with closing(response):
        work.lease.on_stop(lambda: abort(response))
        api._raise_for_status(response)
        return _read(work, response)


def _logins(api: Any) -> dict[str, str]:
    """For the registries of base images and of the cache."""
    headers: dict[str, str] = {}
    api._set_auth_headers(headers)
    return headers


def _secrets(work: Work) -> dict[str, str]:
    """For `RUN --mount=type=secret,id=NAME`. Docker's API has no place for them: other engines ignore the header."""
    if not work.claim.secrets:
        return {}
    values = {name: base64.b64encode(value.encode()).decode() for name, value in work.claim.secrets.items()}
    return {"X-Build-Secrets": base64.urlsafe_b64encode(json.dumps(values).encode()).decode()}


def _read(work: Work, response: requests.Response) -> str:
    image = ""
    try:
        for event in _events(work, response):
            if "stream" in event:
                work.log.write("stdout", str(event["stream"]).encode())
            elif "error" in event:
                raise _failure(event)
            elif isinstance(event.get("aux"), dict) and event["aux"].get("ID"):
                image = str(event["aux"]["ID"])
            elif "status" in event and "progressDetail" not in event:
                work.log.say(str(event["status"]))
    except requests.RequestException as error:
        work.lease.check()
        raise StageFailed(f"build: the engine went away: {error}") from error
    work.log.flush("stdout")
    work.lease.check()
    if not image:
        raise StageFailed("build: the engine ended the build without an image")
    with explained("build"):
        return str(work.engine.images.get(image).id)


def _events(work: Work, response: requests.Response) -> Iterator[dict[str, Any]]:
    api: Any = work.engine.api
    try:
        yield from api._stream_helper(response, decode=True)
    except (DockerException, ValueError) as error:
        work.lease.check()
        raise StageFailed(f"build: the engine's answer broke off: {error}") from error


def _failure(event: dict[str, Any]) -> StageFailed:
    detail = event.get("errorDetail") or {}
    code = detail.get("code")
    return StageFailed(f"build: {event['error']}", exit_code=code if isinstance(code, int) else None)


def _labels(work: Work, spec: BuildSpec) -> dict[str, str]:
    """Only what the image is: an attempt's own labels would pass to every container of the image."""
    run = work.claim.run
    origin = {
        "org.opencontainers.image.revision": run.sha,
        "org.opencontainers.image.source": run.repository,
    }
    return {**{key: value for key, value in origin.items() if value}, **spec.labels}


def _ignored(context: Path, dockerfile: str) -> list[str]:
    """The lines of `<dockerfile>.dockerignore`, else `.dockerignore`."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            text = inside(context, name).read_text()
        except (OSError, SourceError):
            continue
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return []
