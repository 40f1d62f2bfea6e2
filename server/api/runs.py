"""Runs: list, look at, try again, cancel, approve."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.api.common import body_of, conductor_of, number_of, query_int, shown, store_of


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    from_stage: str | None = None


class Cancel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: str = ""


class Approve(BaseModel):
    model_config = ConfigDict(extra="forbid")
    who: str = ""


async def list_runs(request: Request) -> Response:
    query = request.query_params
    runs = await run_in_threadpool(
        store_of(request).list_runs,
        limit=query_int(request, "limit", 50, low=1, high=500),
        before=query_int(request, "before", None),
        pipeline=query.get("pipeline"),
        branch=query.get("branch"),
        repository=query.get("repository"),
        states=query.getlist("state"),
    )
    return JSONResponse({"runs": shown(*runs)})


async def get_run(request: Request) -> Response:
    run = await run_in_threadpool(store_of(request).get_run, number_of(request, "run"))
    return JSONResponse(run.model_dump(mode="json"))


async def retry(request: Request) -> Response:
    body = await body_of(request, Retry)
    number = number_of(request, "run")
    conductor = conductor_of(request)
    run = await run_in_threadpool(conductor.store.retry, number, from_stage=body.from_stage)
    await run_in_threadpool(conductor.advance, number)
    return JSONResponse(run.model_dump(mode="json"), 202)


async def cancel(request: Request) -> Response:
    body = await body_of(request, Cancel)
    number = number_of(request, "run")
    conductor = conductor_of(request)
    run = await run_in_threadpool(conductor.store.cancel, number, reason=body.reason)
    await run_in_threadpool(conductor.advance, number)
    return JSONResponse(run.model_dump(mode="json"), 202)


async def approve(request: Request) -> Response:
    body = await body_of(request, Approve)
    number = number_of(request, "run")
    conductor = conductor_of(request)
    stage = request.path_params["stage"]
    run = await run_in_threadpool(conductor.store.approve, number, stage, who=body.who)
    await run_in_threadpool(conductor.advance, number)
    return JSONResponse(run.model_dump(mode="json"), 202)


routes = [
    Route("/runs", list_runs),
    Route("/runs/{run}", get_run),
    Route("/runs/{run}/retry", retry, methods=["POST"]),
    Route("/runs/{run}/cancel", cancel, methods=["POST"]),
    Route("/runs/{run}/stages/{stage:path}/approve", approve, methods=["POST"]),
]
