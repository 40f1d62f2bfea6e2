"""Images in and out: pull, push, save, load, import."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, BinaryIO, cast

import msgspec
from aiohttp import web

from engine.api import answer, progress
from engine.api.call import Call
from engine.api.credentials import auth_from
from engine.api.images import reference_of
from engine.api.router import Routes
from engine.errors import EngineError, Forbidden, InvalidInput, NotFound, Unauthorized
from engine.images.archive.load import load
from engine.images.archive.plain import import_tar
from engine.images.archive.save import save
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.reference import Reference, names_one
from engine.registry.client import Auth, describe, list_tags, pull, push

routes = Routes()


@routes.add("POST", "/images/create", streaming=True)
async def create(call: Call) -> web.StreamResponse:
    """Pull from a registry, or import a root file system."""
    if call.text("fromSrc"):
        return await _import(call)
    reference = reference_of(call.text("fromImage"), call.text("tag"))
    everything = not call.text("tag") and not names_one(call.text("fromImage"))
    auth = auth_from(call)
    platform = Platform.parse(call.text("platform")) if call.text("platform") else None

    async def work(say: progress.Say) -> None:
        if not everything:
            await _pull(call, reference, platform, auth, say)
            return
        for tag in await list_tags(call.rooms.registry, reference, auth=auth):
            await _pull(call, reference.with_tag(tag), platform, auth, say)

    return await progress.stream(call, work)


async def _pull(
    call: Call, reference: Reference, platform: Platform | None, auth: Auth | None, say: progress.Say
) -> None:
    """Says nothing until the image is found: what is not there is then told by the answer's status."""
    before = _known(call, reference)
    begun = False
    early: list[dict[str, Any]] = []

    def tell(message: dict[str, Any]) -> None:
        nonlocal begun
        if not begun and "id" not in message and "progressDetail" in message:
            early.append(message)  # of a pause, or of a mirror: nothing is found yet
            return
        if not begun:
            begun = True
            say({"status": f"Pulling from {reference.path}", "id": reference.tag or reference.digest})
            for one in early:
                say(one)
        say(message)

    try:
        image = await pull(
            call.rooms.registry,
            reference,
            call.rooms.images,
            platform=platform,
            auth=auth,
            progress=progress.Layers(tell, call.rooms.metrics.layer_bytes.labels("in")),
        )
    except (Unauthorized, Forbidden) as error:
        # As dockerd: at a 401 of ours the docker command would stop and ask for a password.
        raise NotFound(str(error)) from None
    digest = image.manifest.digest if image.manifest else image.id
    tell({"status": f"Digest: {digest}"})
    state = "Image is up to date" if before == image.id else "Downloaded newer image"
    tell({"status": f"Status: {state} for {reference.familiar}"})
    call.rooms.events.of_image("pull", image, reference.familiar_repository, reference.familiar)


def _known(call: Call, reference: Reference) -> str:
    try:
        return call.rooms.images.get(str(reference)).id
    except NotFound:
        return ""


@routes.add("POST", "/images/{name:path}/push", streaming=True)
async def push_(call: Call) -> web.StreamResponse:
    chosen = await asyncio.to_thread(_to_push, call)
    auth = auth_from(call)

    async def work(say: progress.Say) -> None:
        for number, (reference, image) in enumerate(chosen):
            if number == 0:
                say({"status": f"The push refers to repository [{reference.repository}]"})
            result = await push(
                call.rooms.registry,
                call.rooms.images,
                image,
                reference,
                auth=auth,
                progress=progress.Layers(say, call.rooms.metrics.layer_bytes.labels("out")),
            )
            say({"status": f"{reference.tag}: digest: {result.digest} size: {result.size}"})
            aux = {"Tag": reference.tag, "Digest": result.digest, "Size": result.size}
            say({"progressDetail": {}, "aux": aux})
            call.rooms.events.of_image("push", image, reference.familiar_repository, reference.familiar)

    return await progress.stream(call, work)


def _to_push(call: Call) -> list[tuple[Reference, Image]]:
    """The one that a tag names; without a tag all of the repository. Raises NotFound."""
    name, tag = call.params["name"], call.text("tag")
    if tag or names_one(name):
        reference = reference_of(name, tag)
        return [(reference, call.rooms.images.get(str(reference)))]
    repository = Reference.parse_repository(name)
    found = [(reference, call.rooms.images.get(str(reference))) for reference in call.rooms.images.tags_of(repository)]
    if not found:
        raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_repository}")
    return found


@routes.add("GET", "/distribution/{name:path}/json")
async def distribution(call: Call) -> web.StreamResponse:
    """What a registry has under a name, without pulling it."""
    reference = Reference.parse(call.params["name"])
    found = await describe(call.rooms.registry, reference, auth=auth_from(call))
    descriptor = {"mediaType": found.descriptor.media_type, "digest": found.descriptor.digest}
    return answer.json(
        {
            "Descriptor": descriptor | {"size": found.descriptor.size},
            "Platforms": [msgspec.to_builtins(platform) for platform in found.platforms],
        }
    )


@routes.add("GET", "/images/get", streaming=True)
@routes.add("GET", "/images/{name:path}/get", streaming=True)
async def save_(call: Call) -> web.StreamResponse:
    names = [call.params["name"]] if "name" in call.params else call.texts("names")
    if not names:
        raise InvalidInput("no images given: names is empty")
    loop = asyncio.get_running_loop()

    def work(write: answer.Written) -> None:
        for image in save(call.rooms.images, names, write):
            loop.call_soon_threadsafe(call.rooms.events.of_image, "save", image)

    return await answer.written(call, "application/x-tar", work)


@routes.add("POST", "/images/load", streaming=True)
async def load_(call: Call) -> web.StreamResponse:
    async def work(say: progress.Say) -> None:
        try:
            images = await asyncio.to_thread(load, call.rooms.images, cast(BinaryIO, call.file()))
        except EngineError as error:
            # In the stream, as Docker has it: clients look for it there.
            say(progress.error_message(error))
            return
        for image in images:
            for name in image.tags or (image.id,):
                kind = "Loaded image" if image.tags else "Loaded image ID"
                say({"stream": f"{kind}: {name}\n"})
            call.rooms.events.of_image("load", image)

    return await progress.stream(call, work)


async def _import(call: Call) -> web.StreamResponse:
    if call.text("fromSrc") != "-":
        raise InvalidInput("import from an address is not supported: download the archive, and import it")
    reference = reference_of(call.text("repo"), call.text("tag")) if call.text("repo") else None
    platform = Platform.parse(call.text("platform")) if call.text("platform") else None
    if platform is not None and platform.os != "linux":
        raise InvalidInput(f"can't import for {platform.os}: operating system is not supported")

    async def work(say: progress.Say) -> None:
        importing = partial(
            import_tar,
            call.rooms.images,
            cast(BinaryIO, call.file()),
            reference,
            changes=call.texts("changes"),
            message=call.text("message"),
            platform=platform,
        )
        image = await asyncio.to_thread(importing)
        say({"status": image.id})
        call.rooms.events.of_image("import", image, reference.familiar if reference else "")

    return await progress.stream(call, work)
