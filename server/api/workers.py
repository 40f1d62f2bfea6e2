"""The worker API: `pipeline.wire`'s calls, each answered by the store."""

from __future__ import annotations

import hmac

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.local import LocalStageClient
from pipeline.protocol import Claim
from pipeline.settings import Settings
from pipeline.views import StepReady
from pipeline.wire import CALLS, MAX_BODY
from server.api.common import conductor_of
from server.hooks.signature import BodyTooLarge, read_body

_TELLS = frozenset({"claim", "finish", "log", "heartbeat", "begin_rollout", "update_rollout", "record_release"})
"""Calls after which the page looks different."""


async def call(request: Request) -> Response:
    """One call of a worker."""
    token: str = request.app.state.worker_token
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
        return JSONResponse({"error": "the worker's token is wrong: set SHIPWAY_WORKER_TOKEN"}, 401)
    wanted = CALLS.get(request.path_params["call"])
    if wanted is None:
        return JSONResponse({"error": "there is no such call: is the worker newer than the server?"}, 404)
    try:
        arguments = wanted.arguments(await read_body(request, MAX_BODY))
    except BodyTooLarge as error:
        return JSONResponse({"error": str(error)}, 413)
    except ValidationError as error:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)
    conductor = conductor_of(request)
    client = LocalStageClient(conductor.store)
    result = await run_in_threadpool(getattr(client, wanted.name), **arguments)
    if isinstance(result, Claim):
        result = with_token(result, conductor.settings)
    if wanted.name in _TELLS:
        conductor.feed.touch()
    if wanted.name == "finish":
        await run_in_threadpool(conductor.sweep)
    if wanted.name == "request_step":
        await run_in_threadpool(conductor.send, (), (StepReady(step=result.id, host=result.host),))
    return Response(wanted.encode_result(result), media_type="application/json")


def with_token(claim: Claim, settings: Settings) -> Claim:
    """The claim with the repository's token, which is in the settings only and is never stored."""
    repository = settings.repositories.get(claim.run.repository)
    if claim.source is None or repository is None or repository.token is None:
        return claim
    source = claim.source.model_copy(update={"token": repository.token.get_secret_value()})
    return claim.model_copy(update={"source": source})


routes = [Route("/{call}", call, methods=["POST"])]
