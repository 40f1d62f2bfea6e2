"""Services: what runs, what ran, and wishes about it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.api.common import body_of, conductor_of, query_int, shown, store_of


class Deploy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    image: str | None = None
    who: str = ""


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid")
    release: str | None = None
    who: str = ""


async def list_services(request: Request) -> Response:
    return JSONResponse({"services": shown(*await run_in_threadpool(store_of(request).list_services))})


async def get_service(request: Request) -> Response:
    view = await run_in_threadpool(store_of(request).get_service, request.path_params["service"])
    return JSONResponse(view.model_dump(mode="json"))


async def list_releases(request: Request) -> Response:
    found = await run_in_threadpool(
        store_of(request).past_releases,
        request.path_params["service"],
        limit=query_int(request, "limit", 50, low=1, high=500),
    )
    return JSONResponse({"releases": shown(*found)})


async def deploy(request: Request) -> Response:
    body = await body_of(request, Deploy)
    service = request.path_params["service"]
    run = await run_in_threadpool(conductor_of(request).deploy, service, body.image, who=body.who)
    return JSONResponse(run.model_dump(mode="json"), 202)


async def rollback(request: Request) -> Response:
    body = await body_of(request, Rollback)
    service = request.path_params["service"]
    run = await run_in_threadpool(conductor_of(request).rollback, service, body.release, who=body.who)
    return JSONResponse(run.model_dump(mode="json"), 202)


async def list_workers(request: Request) -> Response:
    return JSONResponse({"workers": shown(*await run_in_threadpool(store_of(request).hosts))})


async def forget_worker(request: Request) -> Response:
    await run_in_threadpool(store_of(request).forget_worker, request.path_params["worker"])
    return Response(status_code=204)


routes = [
    Route("/services", list_services),
    Route("/services/{service}", get_service),
    Route("/services/{service}/releases", list_releases),
    Route("/services/{service}/deploy", deploy, methods=["POST"]),
    Route("/services/{service}/rollback", rollback, methods=["POST"]),
    Route("/workers", list_workers),
    Route("/workers/{worker}", forget_worker, methods=["DELETE"]),
]
