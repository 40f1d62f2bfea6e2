"""What can be wrong with a Dockerfile or with a build, said with the line and the instruction."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import EngineError, InvalidInput


class DockerfileError(InvalidInput):
    """A Dockerfile that cannot be understood.

    `problem` is what is wrong in itself; `line` (from 1, or 0 for none) and `instruction` (upper case, or
    empty) say where. `str(error)` is one line for a person.
    """

    def __init__(self, problem: str, line: int = 0, instruction: str = "") -> None:
        self.problem = _one_line(problem)
        self.line = line
        self.instruction = instruction
        super().__init__(self._text())

    def _text(self) -> str:
        where = f"dockerfile parse error on line {self.line}: " if self.line else "dockerfile parse error: "
        named = self.instruction and self.instruction not in self.problem.upper()
        return where + (f"{self.instruction}: " if named else "") + self.problem

    def at(self, line: int, instruction: str) -> DockerfileError:
        """The same problem with its place, unless it has one already."""
        if self.line:
            return self
        return DockerfileError(self.problem, line, instruction)


class StepError(EngineError):
    """A step of a build that was understood and did not succeed.

    `exit_code` is the command's, where a command ran (HTTP 500 all the same: the build as a whole failed).
    """

    def __init__(self, problem: str, line: int, instruction: str, exit_code: int | None = None) -> None:
        self.problem = _one_line(problem)
        self.line = line
        self.instruction = instruction
        self.exit_code = exit_code
        super().__init__(f"Dockerfile:{line}: {instruction}: {self.problem}")


def _one_line(text: str) -> str:
    """What a Dockerfile says may have any character in it; what is told of it is a line."""
    return text if text.isprintable() else "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def did_you_mean(word: str, known: Iterable[str], *, fold_case: bool = False) -> str:
    """` (did you mean X?)` for the nearest of `known` at a distance of one or two edits, else nothing."""
    wanted = word.lower() if fold_case else word
    best, least = "", 3
    for candidate in known:
        other = candidate.lower() if fold_case else candidate
        if other == wanted:
            return ""  # it is known: the fault lies elsewhere
        distance = _edits(wanted, other, least)
        if distance < least:
            best, least = candidate, distance
    if not best:
        return ""
    if fold_case:
        best = best.lower() if word == word.lower() else best.upper() if word == word.upper() else best.lower()
    return f" (did you mean {best}?)"


def _edits(left: str, right: str, limit: int) -> int:
    """Levenshtein's distance, or any number at or above `limit` once it is known to be that far."""
    if abs(len(left) - len(right)) >= limit:
        return limit
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
        if min(row) >= limit:
            return limit
    return row[-1]
