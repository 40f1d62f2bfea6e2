"""`/healthz`: the process lives. `/readyz`: it can do its work."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from server.api.common import conductor_of, store_of


async def healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """503 without its database or its own threads. A broker that is away is told of and is no reason: what is
    accepted meanwhile waits in its rows, and the page is needed most then."""
    conductor = conductor_of(request)
    problems = []
    try:
        await run_in_threadpool(store_of(request).list_runs, limit=1)
    except Exception as error:
        problems.append(f"the database does not answer: {' '.join(str(error).split())[:300]}")
    if not conductor.alive:
        problems.append("the threads that plan and sweep have ended: restart the server")
    body = {"ready": not problems, "problems": problems, "broker": "ok" if conductor.broker_ok else "away"}
    return JSONResponse(body, 200 if not problems else 503)
