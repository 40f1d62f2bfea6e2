"""/images: what containers are made of."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from engine.api import answer, filters, imagejson
from engine.api.call import Call
from engine.api.credentials import auth_from
from engine.api.router import Routes
from engine.containers import times
from engine.containers.filters import boolean, matches_labels
from engine.errors import InvalidInput
from engine.images.image import Deleted, Image
from engine.images.reference import DEFAULT_DOMAIN, Reference
from engine.registry.client import Found
from engine.registry.client import search as registry_search

routes = Routes()
_STARS = re.compile(r"[0-9]{1,18}")
_FILTERS = frozenset({"reference", "dangling", "label", "label!", "before", "since", "until"})


def reference_of(repository: str, tag: str) -> Reference:
    """`tag` may be a digest as well; it goes before a tag that `repository` has."""
    if not repository:
        raise InvalidInput("invalid reference format: no repository given")
    named = Reference.parse(repository)
    if not tag:
        return named
    if named.digest:
        raise InvalidInput(
            f"invalid reference format: {repository[:200]!r} has a digest, and {tag[:200]!r} comes with it"
        )
    return named.with_digest(tag) if ":" in tag else named.with_tag(tag)


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
        matches_labels(image.config.config.labels, wanted)
        and boolean(wanted, "dangling") in (None, not image.tags)
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


@routes.add("GET", "/images/{name:path}/json")
async def inspect(call: Call) -> web.StreamResponse:
    def look() -> dict[str, Any]:
        store = call.rooms.images
        image = store.get(call.params["name"])
        # Where they are, or will be: a snapshot's layer is unpacked when somebody needs its files.
        folders = [str(store.layers.folder(chain)) for chain in reversed(image.config.chain_ids)]
        return imagejson.described(image, call.version, folders, store.catalog.last_tagged(image.id))

    return answer.json(await asyncio.to_thread(look))


@routes.add("GET", "/images/{name:path}/history")
async def history(call: Call) -> web.StreamResponse:
    image = await asyncio.to_thread(call.rooms.images.get, call.params["name"])
    return answer.json(await asyncio.to_thread(call.rooms.images.history, image))


@routes.add("POST", "/images/{name:path}/tag")
async def tag(call: Call) -> web.StreamResponse:
    image = await asyncio.to_thread(call.rooms.images.get, call.params["name"])
    reference = reference_of(call.text("repo"), call.text("tag"))
    if reference.familiar_repository == "sha256":
        raise InvalidInput("refusing to create an ambiguous tag using digest algorithm as name")
    await asyncio.to_thread(call.rooms.images.tag, image.id, reference)
    call.rooms.events.of_image("tag", image, reference.familiar)
    return answer.empty(201)


@routes.add("DELETE", "/images/{name:path}")
async def remove(call: Call) -> web.StreamResponse:
    remove = partial(call.rooms.images.remove, force=call.flag("force"), prune=not call.flag("noprune"))
    return answer.json(_deleted(call, await asyncio.to_thread(remove, call.params["name"])))


@routes.add("POST", "/images/prune")
async def prune(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    filters.check(wanted, {"dangling", "label", "label!", "until"})
    dangling = boolean(wanted, "dangling") is not False
    wanted.pop("dangling", None)

    def keep(image: Image) -> bool:
        return not _fits(image, wanted, call)

    removed, freed = await asyncio.to_thread(partial(call.rooms.images.prune, dangling=dangling, keep=keep))
    call.rooms.events.pruned("image", freed)
    return answer.json({"ImagesDeleted": _deleted(call, removed) or None, "SpaceReclaimed": freed})


def _deleted(call: Call, removed: Sequence[Deleted]) -> list[dict[str, str]]:
    """Docker's list of what went, and the events that go with it."""
    shown: list[dict[str, str]] = []
    for one in removed:
        if one.untagged and one.image:
            shown.append({"Untagged": one.untagged})
            call.rooms.events.of_image("untag", one.image, one.untagged)
        if one.deleted:
            shown.append({"Deleted": one.deleted})
            # In Docker, too, it is gone by now and its labels with it.
            call.rooms.events.publish("image", "delete", one.deleted, {"name": one.deleted})
    return shown


@routes.add("GET", "/images/search")
async def search(call: Call) -> web.StreamResponse:
    """`docker search [REGISTRY/]TERM`: registries of our kind and Docker Hub can be searched."""
    wanted = call.filters()
    filters.check(wanted, {"is-official", "is-automated", "stars"})
    first, slash, rest = call.text("term").partition("/")
    elsewhere = slash and ("." in first or ":" in first or first == "localhost")
    found = await registry_search(
        call.rooms.registry,
        first if elsewhere else DEFAULT_DOMAIN,
        rest if elsewhere else call.text("term"),
        limit=call.number("limit") or 25,
        auth=auth_from(call),
    )
    return answer.json([msgspec.to_builtins(each) for each in found if _is_sought(each, wanted)])


def _is_sought(found: Found, wanted: dict[str, list[str]]) -> bool:
    return (
        boolean(wanted, "is-official") in (None, found.is_official)
        and boolean(wanted, "is-automated") in (None, found.is_automated)
        and all(_STARS.fullmatch(value) and found.star_count >= int(value) for value in wanted.get("stars", []))
    )
