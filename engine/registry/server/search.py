"""`docker search`: the one thing of the registry API's first version that is still spoken."""

from __future__ import annotations

import asyncio

from aiohttp import web

from engine.registry.server import errors, state

_MOST = 100
_LONGEST_TERM = 200


async def ping(request: web.Request) -> web.Response:
    """`/v1/_ping`: clients look whether there is a registry before they search."""
    headers = {"X-Docker-Registry-Version": "0.9.1", "X-Docker-Registry-Standalone": "true"}
    return web.json_response({"standalone": True}, headers=headers)


async def search(request: web.Request) -> web.Response:
    """`/v1/search?q=TERM&n=PAGE_SIZE&page=NUMBER`: repositories that this client may see, by parts of their names."""
    registry = state.of(request)
    term = request.query.get("q", "").strip().lower()[:_LONGEST_TERM]
    size, page = _number(request, "n", 25), _number(request, "page", 1)
    names = await asyncio.to_thread(registry.storage.repositories)
    found = await registry.guard.visible(request, [name for name in names if term in name])
    # What is called so comes before what is called so among other things.
    found.sort(key=lambda name: (name.rpartition("/")[2] != term, not name.rpartition("/")[2].startswith(term), name))
    results = [
        {"name": name, "description": "", "is_official": False, "is_automated": False, "star_count": 0}
        for name in found[(page - 1) * size : page * size]
    ]
    return web.json_response(
        {
            "query": term,
            "num_results": len(found),
            "num_pages": -(-len(found) // size),
            "page": page,
            "page_size": size,
            "results": results,
        }
    )


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text[:9]) < 1:
        raise errors.RegistryError(400, "PAGINATION_NUMBER_INVALID", f"{name} must be a number from 1 on")
    return min(int(text[:9]), _MOST if name == "n" else 10**9)
