"""One record of comma-separated values as Go's encoding/csv reads it: what `RUN --mount` is written in."""

from __future__ import annotations

from engine.build.problems import DockerfileError


def read_fields(text: str) -> list[str]:
    """The fields of one line. Raises DockerfileError where Go would refuse the quotes."""
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            field, at = _quoted(text, at + 1)
        else:
            end = text.find(",", at)
            field = text[at:] if end < 0 else text[at:end]
            bare = field.find('"')
            if bare >= 0:
                raise _error(at + bare, 'bare " in non-quoted-field')
            at += len(field)
        fields.append(field)
        if at >= len(text):
            return fields
        at += 1  # the comma


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The field whose opening quote stands before `at`, and where it ends."""
    pieces: list[str] = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise _error(len(text), 'extraneous or missing " in quoted-field')
        pieces.append(text[at:end])
        at = end + 1
        if text.startswith('"', at):
            pieces.append('"')
            at += 1
        elif at == len(text) or text[at] == ",":
            return "".join(pieces), at
        else:
            raise _error(end, 'extraneous or missing " in quoted-field')


def _error(at: int, problem: str) -> DockerfileError:
    return DockerfileError(f"failed to parse csv mounts: parse error on line 1, column {at + 1}: {problem}")
