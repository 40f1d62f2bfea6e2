"""/images: what containers are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, BinaryIO, cast

from aiohttp import web

from engine.api import answer, filters, imagejson, progress
from engine.api.call import Call
from engine.api.credentials import auth_from
from engine.api.errors import NotImplementedHere
from engine.api.router import Routes
from engine.containers import times
from engine.errors import InvalidInput, NotFound
from engine.images.archive.load import load
from engine.images.archive.plain import import_tar
from engine.images.archive.save import save
from engine.images.descriptor import Platform
from engine.images.image import Deleted, Image
from engine.images.reference import Reference
from engine.registry.client import pull, push

routes = Routes()
_FILTERS = frozenset({"reference", "dangling", "label", "label!", "before", "since", "until"})


def _reference(repository: str, tag: str) -> Reference:
    """`tag` may be a digest as well."""
    if not repository:
        raise InvalidInput("invalid reference format: no repository given")
    if not tag:
        return Reference.parse(repository)
    return Reference.parse(f"{repository}@{tag}" if ":" in tag else f"{repository}:{tag}")


@routes.add("GET", "/images/json")
async def list_(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    filters.check(wanted, _FILTERS)
    found = await asyncio.to_thread(partial(call.rooms.images.list, all=call.flag("all")))
    patterns = wanted.get("reference")
    return answer.json(
        [
            imagejson.summary(image, _called(image, patterns) if patterns else None)
            for image in found
            if _fits(image, wanted, call)
        ]
    )


def _fits(image: Image, wanted: dict[str, list[str]], call: Call) -> bool:
    def is_newer(name: str) -> bool:
        return image.created > call.rooms.images.get(name).created

    def is_older(name: str) -> bool:
        return image.created < call.rooms.images.get(name).created

    return (
        filters.labels_match(image.config.config.labels, wanted.get("label", []))
        and not any(filters.labels_match(image.config.config.labels, [label]) for label in wanted.get("label!", []))
        and filters.any_of(wanted.get("dangling"), lambda value: (value in {"1", "true"}) == (not image.tags))
        and ("reference" not in wanted or bool(_called(image, wanted["reference"])))
        and all(is_newer(name) for name in wanted.get("since", []))
        and all(is_older(name) for name in wanted.get("before", []))
        and all(times.parse_rfc3339(image.created) < times.parse_since(until) for until in wanted.get("until", []))
    )


def _called(image: Image, patterns: Sequence[str]) -> list[str]:
    """Those of the image's names that fit one of the shell patterns: the whole of it, or all but the tag."""
    found = []
    for name in (*image.tags, *image.digests):
        repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
        if any(filters.path_match(pattern, form) for pattern in patterns for form in (name, repository)):
            found.append(name)
    return found


@routes.add("POST", "/images/create", streaming=True)
async def create(call: Call) -> web.StreamResponse:
    """Pull from a registry, or import a root file system."""
    if call.text("fromSrc"):
        return await _import(call)
    reference = _reference(call.text("fromImage"), call.text("tag"))
    auth = auth_from(call)

    async def work(say: progress.Say) -> None:
        before = _known(call, reference)
        say({"status": f"Pulling from {reference.path}", "id": reference.tag or reference.digest})
        image = await pull(
            call.rooms.registry,
            reference,
            call.rooms.images,
            platform=call.text("platform") or None,
            auth=auth,
            progress=progress.Layers(say, call.rooms.metrics.layer_bytes.labels("in")),
        )
        digest = image.manifest.digest if image.manifest else image.id
        say({"status": f"Digest: {digest}"})
        state = "Image is up to date" if before == image.id else "Downloaded newer image"
        say({"status": f"Status: {state} for {reference.familiar}"})
        _publish(call, "pull", reference.familiar, {"name": reference.familiar_repository})

    return await progress.stream(call, work)


def _known(call: Call, reference: Reference) -> str:
    try:
        return call.rooms.images.get(str(reference)).id
    except NotFound:
        return ""


@routes.add("POST", "/images/{name:path}/push", streaming=True)
async def push_(call: Call) -> web.StreamResponse:
    reference = _reference(call.params["name"], call.text("tag"))
    image = call.rooms.images.get(str(reference))
    auth = auth_from(call)

    async def work(say: progress.Say) -> None:
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
        _publish(call, "push", reference.familiar, {"name": reference.familiar_repository})

    return await progress.stream(call, work)


@routes.add("GET", "/images/{name:path}/json")
async def inspect(call: Call) -> web.StreamResponse:
    def look() -> dict[str, Any]:
        store = call.rooms.images
        image = store.get(call.params["name"])
        # Where they are, or will be: a snapshot's layer is unpacked when somebody needs its files.
        folders = [str(store.layers.folder(chain)) for chain in reversed(image.config.chain_ids)]
        return imagejson.described(image, call.version, folders)

    return answer.json(await asyncio.to_thread(look))


@routes.add("GET", "/images/{name:path}/history")
async def history(call: Call) -> web.StreamResponse:
    image = await asyncio.to_thread(call.rooms.images.get, call.params["name"])
    return answer.json(await asyncio.to_thread(call.rooms.images.history, image))


@routes.add("POST", "/images/{name:path}/tag")
async def tag(call: Call) -> web.StreamResponse:
    image = await asyncio.to_thread(call.rooms.images.get, call.params["name"])
    reference = _reference(call.text("repo"), call.text("tag"))
    await asyncio.to_thread(call.rooms.images.tag, image.id, reference)
    _publish(call, "tag", image.id, {"name": reference.familiar})
    return answer.empty(201)


@routes.add("DELETE", "/images/{name:path}")
async def remove(call: Call) -> web.StreamResponse:
    name, store = call.params["name"], call.rooms.images

    def work() -> tuple[str, list[Deleted]]:
        known = store.get(name).id
        return known, store.remove(name, force=call.flag("force"), prune=not call.flag("noprune"))

    known, removed = await asyncio.to_thread(work)
    return answer.json(_deleted(call, removed, known))


@routes.add("POST", "/images/prune")
async def prune(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    filters.check(wanted, {"dangling", "label", "label!", "until"})
    dangling = wanted.pop("dangling", ["true"])[0] not in {"0", "false"}

    def keep(image: Image) -> bool:
        return not _fits(image, wanted, call)

    removed, freed = await asyncio.to_thread(partial(call.rooms.images.prune, dangling=dangling, keep=keep))
    return answer.json({"ImagesDeleted": _deleted(call, removed), "SpaceReclaimed": freed})


def _deleted(call: Call, removed: Sequence[Deleted], known: str = "") -> list[dict[str, str]]:
    """Docker's list of what went, and the events that go with it. `known`: the image that lost its names."""
    shown: list[dict[str, str]] = []
    for number, one in enumerate(removed):
        if one.untagged:
            shown.append({"Untagged": one.untagged})
            owner = known or next((later.deleted for later in removed[number:] if later.deleted), one.untagged)
            _publish(call, "untag", owner, {"name": one.untagged})
        if one.deleted:
            shown.append({"Deleted": one.deleted})
            _publish(call, "delete", one.deleted, {"name": one.deleted})
    return shown


@routes.add("GET", "/images/get", streaming=True)
@routes.add("GET", "/images/{name:path}/get", streaming=True)
async def save_(call: Call) -> web.StreamResponse:
    names = [call.params["name"]] if "name" in call.params else call.texts("names")
    if not names:
        raise InvalidInput("no images given: names is empty")
    return await answer.written(call, "application/x-tar", partial(save, call.rooms.images, names))


@routes.add("POST", "/images/load", streaming=True)
async def load_(call: Call) -> web.StreamResponse:
    async def work(say: progress.Say) -> None:
        images = await asyncio.to_thread(load, call.rooms.images, cast(BinaryIO, call.file()))
        for image in images:
            for name in image.tags or (image.id,):
                kind = "Loaded image" if image.tags else "Loaded image ID"
                say({"stream": f"{kind}: {name}\n"})
            _publish(call, "load", image.id, {"name": image.id})

    return await progress.stream(call, work)


async def _import(call: Call) -> web.StreamResponse:
    if call.text("fromSrc") != "-":
        raise InvalidInput("import from an address is not supported: download the archive, and import it")
    reference = _reference(call.text("repo"), call.text("tag")) if call.text("repo") else None
    platform = call.text("platform")

    async def work(say: progress.Say) -> None:
        importing = partial(
            import_tar,
            call.rooms.images,
            cast(BinaryIO, call.file()),
            reference,
            changes=call.texts("changes"),
            message=call.text("message"),
            platform=Platform.parse(platform) if platform else None,
        )
        image = await asyncio.to_thread(importing)
        say({"status": image.id})
        _publish(call, "import", image.id, {"name": reference.familiar if reference else image.id})

    return await progress.stream(call, work)


@routes.add("GET", "/images/search")
async def search(call: Call) -> web.StreamResponse:
    raise NotImplementedHere("this engine does not search registries")


def _publish(call: Call, action: str, actor: str, attributes: dict[str, str]) -> None:
    call.rooms.events.publish("image", action, actor, attributes)
