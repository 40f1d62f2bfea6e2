"""Image → registry. The digest that the registry gave is what later stages deploy."""

from __future__ import annotations

from functools import partial
from typing import Any

from docker.errors import APIError, ImageNotFound

from pipeline.plan.models import PushSpec
from pipeline.protocol import Outputs
from workers.engine import RegistryError, bounded, explained
from workers.executors.base import StageFailed, Work


def execute(work: Work) -> Outputs:
    """See the package."""
    spec = work.claim.spec
    assert isinstance(spec, PushSpec)
    tags = tuple(dict.fromkeys(spec.tags)) or (work.claim.run.sha[:12] or "latest",)
    with explained(f"image {spec.image}"):
        try:
            image = work.engine.images.get(spec.image)
        except ImageNotFound:
            raise StageFailed(
                f"image {spec.image[:80]} is not on this worker: run the stage that makes it again"
            ) from None
        for tag in tags:
            image.tag(spec.to, tag=tag)
    digest = ""
    with work.phase("push"):
        for tag in tags:
            name = f"{spec.to}:{tag}"
            work.log.say(f"pushing {name}")
            digest = bounded(name, partial(_push, work, spec.to, tag), work.log.say, work.lease.check)
    work.log.say(f"pushed {spec.to}@{digest}")
    return Outputs(image=f"{spec.to}@{digest}", image_id=image.id, digest=digest, tags=tags)


def _push(work: Work, repository: str, tag: str) -> str:
    """The digest of the manifest. Raises RegistryError, APIError."""
    digest = ""
    events: Any = work.engine.api.push(repository, tag=tag, stream=True, decode=True)
    for event in events:
        work.lease.check()
        if "error" in event:
            raise RegistryError(str(event["error"]))
        aux = event.get("aux")
        if isinstance(aux, dict) and aux.get("Digest"):
            digest = str(aux["Digest"])
        elif "status" in event and "progressDetail" not in event:
            work.log.say(str(event["status"]))
    return digest or _known_digest(work, repository, tag)


def _known_digest(work: Work, repository: str, tag: str) -> str:
    """From the engine's notes: some engines don't tell it in the stream."""
    try:
        digests = work.engine.images.get(f"{repository}:{tag}").attrs.get("RepoDigests") or []
    except APIError as error:
        raise StageFailed(f"{repository}:{tag}: {error}") from error
    for known in digests:
        name, _, digest = known.partition("@")
        if name == repository:
            return str(digest)
    raise StageFailed(f"{repository}:{tag}: the engine told no digest")
