"""A request's JSON as Go's decoder takes it: names in whatever case, null for what is not said."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import inspect

T = TypeVar("T")
# Docker takes a plain string for these.
_STRING_OR_LIST = frozenset({"Cmd", "Entrypoint", "Test", "Shell"})


@dataclass(frozen=True)
class _Shape:
    """Which objects there are in a value. `fields` of one with set names, by these in small letters; else `inner` is
    every member's, whose names are the user's own."""

    fields: Mapping[str, tuple[str, _Shape]] | None = None
    inner: _Shape | None = None


_PLAIN = _Shape()


@functools.cache
def _shape(kind: type) -> _Shape:
    return _shape_of(inspect.type_info(kind))


def _shape_of(info: inspect.Type) -> _Shape:
    if isinstance(info, inspect.StructType):
        return _Shape({each.encode_name.lower(): (each.encode_name, _shape_of(each.type)) for each in info.fields})
    if isinstance(info, inspect.UnionType):
        return next((found for each in info.types if (found := _shape_of(each)) is not _PLAIN), _PLAIN)
    if isinstance(info, inspect.DictType):
        return _Shape(inner=_shape_of(info.value_type))
    if isinstance(info, inspect.ListType):
        return _shape_of(info.item_type)
    return _PLAIN


def plain(value: Any, kind: type) -> Any:
    """The value with the names that `kind` has in JSON, and without nulls."""
    return _plain(value, _shape(kind))


def _plain(value: Any, shape: _Shape) -> Any:
    if isinstance(value, list):
        return [_plain(item, shape) for item in value]
    if not isinstance(value, dict):
        return value
    fields = shape.fields
    if fields is None:
        inner = shape.inner or _PLAIN
        return {key: _plain(item, inner) for key, item in value.items() if item is not None}
    found = {}
    for key, item in value.items():
        if item is None:
            continue
        name, inner = fields.get(key.lower()) or (key, _PLAIN)
        if isinstance(item, (dict, list)):
            item = _plain(item, inner)
        elif name in _STRING_OR_LIST and isinstance(item, str):
            item = [item]
        found[name] = item
    return found


class Body(dict[str, Any]):
    """An object of a request, asked for names in whatever case."""

    def get(self, name: str, default: Any = None) -> Any:
        """The value of `name`."""
        return super().get(self._known(name), default)

    def pop(self, name: str, default: Any = None) -> Any:
        """Takes `name` out: its value."""
        return super().pop(self._known(name), default)

    def _known(self, name: str) -> str:
        if name in self:
            return name
        small = name.lower()
        return next((key for key in self if key.lower() == small), name)
