"""What is wrong with a pipeline file, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.errors import PipelineError


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend. Line and column count from 1."""

    file: str
    line: int
    column: int
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.what}"
        return f"{text}: {self.remedy}" if self.remedy else text


class DefinitionErrors(PipelineError):
    """All problems of a file at once, in the order of the lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
