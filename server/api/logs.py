"""Logs of a stage: all there is, or as they come.

`GET /api/v1/runs/{run}/stages/{stage}/logs` with `format=text` (the lines alone), `json` (one StoredLine a
line, the default) or `sse`; `follow=1` goes on until the stage has ended; `tail=N`, `after=ID`, `attempt=N`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pipeline.errors import NotFound
from pipeline.run.states import STAGE_ENDED
from pipeline.store import Store
from pipeline.views import StoredLine
from server.api.common import BadRequest, number_of, query_int, store_of
from server.live import Feed

_BATCH = 1000
_PATIENCE = 15.0
"""Seconds without news after which we look anyway, and an SSE comment keeps the connection alive."""
_TYPES = {"text": "text/plain; charset=utf-8", "json": "application/x-ndjson", "sse": "text/event-stream"}


async def logs(request: Request) -> Response:
    store, run, stage = store_of(request), number_of(request, "run"), request.path_params["stage"]
    form = request.query_params.get("format", "json")
    if form not in _TYPES:
        raise BadRequest("format must be text, json or sse")
    write: Callable[[StoredLine], str] = {"text": _text, "json": _json, "sse": _sse}[form]
    after = query_int(request, "after", 0)
    if form == "sse" and request.headers.get("last-event-id", "").isdigit():
        after = int(request.headers["last-event-id"])
    tail = query_int(request, "tail", None, high=100_000)
    attempt = query_int(request, "attempt", None)
    first = await run_in_threadpool(
        store.read_logs, run, stage, attempt=attempt, after=after, limit=max(_BATCH, tail or 0), tail=tail
    )
    follow = request.query_params.get("follow") in ("1", "true")
    feed: Feed = request.app.state.feed

    async def lines() -> AsyncIterator[str]:
        found, last = first, after
        while True:
            if found:
                last = found[-1].id
                yield "".join(map(write, found))
            if len(found) < _BATCH or (tail is not None and found is first):
                seen = feed.version
                over = not follow or feed.closed or await _ended(store, run, stage)
                found = await run_in_threadpool(store.read_logs, run, stage, attempt=attempt, after=last)
                if found:
                    continue
                if over:
                    break
                if await feed.wait(seen, _PATIENCE) == seen and form == "sse":
                    yield ": still here\n\n"
            found = await run_in_threadpool(store.read_logs, run, stage, attempt=attempt, after=last)
        if form == "sse":
            yield "event: end\ndata: \n\n"

    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(lines(), media_type=_TYPES[form], headers=headers)


async def _ended(store: Store, run: int, stage: str) -> bool:
    view = (await run_in_threadpool(store.get_run, run)).stage(stage)
    if view is None:
        raise NotFound(f'there is no stage "{stage}" in run {run}')
    return view.state in STAGE_ENDED


def _text(line: StoredLine) -> str:
    return line.text + "\n"


def _json(line: StoredLine) -> str:
    return line.model_dump_json() + "\n"


def _sse(line: StoredLine) -> str:
    return f"id: {line.id}\nevent: line\ndata: {line.model_dump_json()}\n\n"


routes = [Route("/runs/{run}/stages/{stage:path}/logs", logs)]
