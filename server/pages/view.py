"""What a page is: values for its template, and the sections of it that change while somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.conductor import Conductor


@dataclass(frozen=True)
class View:
    """A page as it is now. Each section is a template of its own, included by the page's and sent alone."""

    name: str
    """Of the page's template and of its sections' folder."""
    sections: tuple[str, ...]
    values: Mapping[str, Any]
    over: bool = False
    """Nothing on it can change any more."""


Load = Callable[[Conductor], View]
"""Blocking; raises PipelineError, such as NotFound."""
