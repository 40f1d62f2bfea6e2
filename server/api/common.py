"""What the API's endpoints share: numbers and bodies in, models out."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from pipeline.store import Store
from server.conductor import Conductor
from server.hooks.signature import BodyTooLarge, read_body

Model = TypeVar("Model", bound=BaseModel)
_MAX_BODY = 64 * 1024


class BadRequest(ValueError):
    """Its text goes to the client, with 400."""


def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def conductor_of(request: Request) -> Conductor:
    conductor: Conductor = request.app.state.conductor
    return conductor


def shown(*values: BaseModel) -> list[Any]:
    return [value.model_dump(mode="json") for value in values]


def number_of(request: Request, name: str) -> int:
    text = request.path_params[name]
    if not text.isdigit() or len(text) > 15:
        raise BadRequest(f"{text!r} is not a number")
    return int(text)


def query_int(request: Request, name: str, default: int | None, *, low: int = 0, high: int = 1 << 53) -> Any:
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not text.isdigit() or not low <= int(text) <= high:
        raise BadRequest(f"{name} must be a number of {low} to {high}")
    return int(text)


async def body_of(request: Request, model: type[Model]) -> Model:
    """The JSON body as a model; an empty body is an empty object."""
    try:
        text = await read_body(request, _MAX_BODY)
        return model.model_validate(json.loads(text) if text.strip() else {})
    except BodyTooLarge as error:
        raise BadRequest(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadRequest(f"{where}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
