"""`StageClient` as HTTP: one table, made from the Protocol itself, that server and client both read.

Each method `m(a, b)` is `POST /api/v1/worker/m` with the JSON body `{"a": …, "b": …}` and the header
`Authorization: Bearer TOKEN`. The answer is 200 with the result as JSON (`null` for None). An error is
`{"error": TEXT, "kind": KIND}` with the status of `ERRORS`; a client raises it again by its kind:

    call = CALLS["claim"]
    body = call.encode(attempt="1.0.1-fe13e4", worker="w1")
    claim = call.decode(response.content)                      # or raise error_of(response.json())
"""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from pipeline.errors import (
    Busy,
    Conflict,
    LeaseLost,
    NotFound,
    PipelineError,
    SettingsError,
    SourceError,
)
from pipeline.protocol import StageClient

PREFIX = "/api/v1/worker/"
MAX_BODY = 32 << 20
"""Bytes of one request: a full batch of the longest lines."""

ERRORS: dict[str, tuple[type[PipelineError], int]] = {
    "not_found": (NotFound, 404),
    "conflict": (Conflict, 409),
    "lease_lost": (LeaseLost, 410),
    "source": (SourceError, 502),
    "settings": (SettingsError, 500),
    "busy": (Busy, 503),
}


@dataclass(frozen=True)
class Call:
    """One method: how its arguments and its result travel."""

    name: str
    request: type[BaseModel]
    response: TypeAdapter[Any]

    def encode(self, **arguments: Any) -> bytes:
        return self.request.model_validate(arguments).model_dump_json().encode()

    def arguments(self, body: bytes) -> dict[str, Any]:
        """Raises pydantic's ValidationError."""
        model = self.request.model_validate_json(body)
        return {name: getattr(model, name) for name in self.request.model_fields}

    def encode_result(self, result: Any) -> bytes:
        return self.response.dump_json(result)

    def decode(self, body: bytes) -> Any:
        return self.response.validate_json(body)


def _calls() -> dict[str, Call]:
    calls = {}
    for name, method in inspect.getmembers(StageClient, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = typing.get_type_hints(method, include_extras=True)
        returns = hints.pop("return")
        fields: dict[str, Any] = {key: (hint, ...) for key, hint in hints.items()}
        request = create_model(f"{name}_request", __config__=ConfigDict(extra="forbid"), **fields)
        calls[name] = Call(name, request, TypeAdapter(returns))
    return calls


CALLS = _calls()


def kind_of(error: PipelineError) -> tuple[str, int]:
    """The word and the HTTP status of an error."""
    for kind, (cls, status) in ERRORS.items():
        if isinstance(error, cls):
            return kind, status
    return "error", 400


def error_of(body: Any, status: int = 0) -> PipelineError:
    """The error that an answer tells of."""
    answer = body if isinstance(body, dict) else {}
    cls, _ = ERRORS.get(str(answer.get("kind")), (Busy if status >= 500 else PipelineError, status))
    return cls(str(answer.get("error") or f"the server answered {status}"))
