"""What commands print: tables for people, JSON lines for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.values import format_duration

_Command = TypeVar("_Command", bound=Callable[..., Any])

_COLOURS = {
    "passed": "green",
    "live": "green",
    "done": "green",
    "healthy": "green",
    "online": "green",
    "failed": "red",
    "lost": "red",
    "reverted": "red",
    "unhealthy": "red",
    "running": "cyan",
    "rolling": "cyan",
    "dispatched": "cyan",
    "waiting": "yellow",
    "cancelled": "yellow",
    "skipped": "bright_black",
    "superseded": "bright_black",
}


def json_option(command: _Command) -> _Command:
    """`--json`, for commands whose answer a script would want."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table without lines; a cell that is a state is coloured on a terminal."""
    table = Table(*headings, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(state_text(str(cell)) for cell in row))
    # A pipe has no width: lines there must not be folded at 80.
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=400)
    console.print(table)


def state_text(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))


def ago(moment: float | None) -> str:
    """`4 min 10 s ago` for unix seconds."""
    if not moment:
        return ""
    elapsed = datetime.now(UTC).timestamp() - moment
    return f"{format_duration(max(0.0, elapsed))} ago"


def span(began: float | None, ended: float | None) -> str:
    """How long something took, or has taken so far."""
    if not began:
        return ""
    return format_duration(max(0.0, (ended or datetime.now(UTC).timestamp()) - began))
