from __future__ import annotations

import pytest
from aiohttp import web

from engine.api import answer
from engine.api.call import Call
from engine.api.errors import NotImplementedHere
from engine.api.router import Routes
from engine.errors import NotFound, Unavailable

routes = Routes()


@routes.add("GET", "/images/{name:path}/json")
async def inspect(call: Call) -> web.StreamResponse:
    return answer.empty()


@routes.add("GET", "/containers/{ref}/json", streaming=True)
async def container(call: Call) -> web.StreamResponse:
    return answer.empty()


@routes.add("DELETE", "/containers/{ref:link}")
async def remove(call: Call) -> web.StreamResponse:
    return answer.empty()


@pytest.mark.parametrize("ref", ["x", "x/y"])
def test_links_to_containers_have_one_slash(ref: str) -> None:
    assert routes.find("DELETE", f"/containers/{ref}")[1] == {"ref": ref}
    for path in ("/containers/x/y/z", "/containers/x/", "/containers//y"):
        with pytest.raises(NotFound, match="page not found"):
            routes.find("DELETE", path)


def test_names_of_images_have_slashes_and_names_of_containers_have_none() -> None:
    route, params = routes.find("GET", "/images/localhost:5000/team/app/json")
    assert (route.handler, route.streaming) == (inspect, False)
    assert params == {"name": "localhost:5000/team/app"}
    route, params = routes.find("GET", "/containers/x/json")
    assert (route.handler, route.streaming) == (container, True)
    assert params == {"ref": "x"}
    for method, path in (("GET", "/containers/x/y/json"), ("POST", "/containers/x/json"), ("GET", "/")):
        with pytest.raises(NotFound, match="page not found"):
            routes.find(method, path)


def test_what_this_engine_does_not_have() -> None:
    with pytest.raises(Unavailable, match="not a swarm manager"):
        routes.find("GET", "/swarm")
    with pytest.raises(NotImplementedHere, match="DOCKER_BUILDKIT=0"):
        routes.find("POST", "/session")
    with pytest.raises(NotFound, match='plugin "x" not found'):
        routes.find("GET", "/plugins/x/json")
