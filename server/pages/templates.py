"""The templates: everything that they print is escaped."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server.pages.text import FILTERS

_ROOT = Path(__file__).resolve().parents[1]
STATIC = _ROOT / "static"


@functools.cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_ROOT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(FILTERS)
    made.globals["static"] = static
    return made


@functools.cache
def static(name: str) -> str:
    """The address of a static file, another one whenever its content is another."""
    mark = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{mark}"


def render(template: str, values: Any) -> str:
    """Raises jinja2's errors: a template that names what is not there is a bug."""
    return environment().get_template(template).render(values)
