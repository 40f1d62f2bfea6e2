"""What is wrong with a pipeline file, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import PipelineError

_LONGEST = 400
"""Characters of each half of a line."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend. Line and column count from 1."""

    file: str
    line: int
    column: int
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line, whatever the file holds: it goes to terminals, logs and pages."""
        text = f"{self.file}:{self.line}:{self.column}: {_line(self.what)}"
        return f"{text}: {_line(self.remedy)}" if self.remedy else text


def _line(text: str) -> str:
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


class DefinitionErrors(PipelineError):
    """All problems of a file at once, in the order of the lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
