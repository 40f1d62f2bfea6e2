"""`--chmod`: octal, or symbolic as in chmod(1): `u=rwX,go-w`."""

from __future__ import annotations

import re
from collections.abc import Callable

_OCTAL = re.compile(r"[0-7]{1,5}\Z")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)\Z")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo])(?=[-+=]|\Z)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_MODE_BITS = 0o7777

ChangeMode = Callable[[int, bool], int]
"""(the permission bits now, whether it is a folder) → the bits after."""


def parse_mode(text: str) -> ChangeMode:
    """What `--chmod=text` does to a file. Raises ValueError."""
    if _OCTAL.match(text):
        bits = int(text, 8)
        if bits <= _MODE_BITS:
            return lambda _mode, _folder: bits
    if text[:1].isdigit():
        raise ValueError(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
    clauses = []
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if match is None:
            raise ValueError(f"invalid chmod parameter: '{text}': write it as 0755 or as u=rwX,go=rX")
        clauses.append((match.group(1), _ACTION.findall(match.group(2))))

    def change(mode: int, folder: bool) -> int:
        for who, actions in clauses:
            for sign, what in actions:
                mode = _apply(mode, folder, who or "a", sign, what)
        return mode

    return change


def _apply(mode: int, folder: bool, who: str, sign: str, what: str) -> int:
    classes = "ugo" if "a" in who else who
    executable = folder or bool(mode & 0o111)
    touched = wanted = 0
    for name in classes:
        shift = _SHIFTS[name]
        touched |= 0o7 << shift
        if what in _SHIFTS and what:
            wanted |= ((mode >> _SHIFTS[what]) & 0o7) << shift
            continue
        rwx = (4 if "r" in what else 0) | (2 if "w" in what else 0)
        rwx |= 1 if "x" in what or ("X" in what and executable) else 0
        wanted |= rwx << shift
    special = (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    if "s" in what:
        wanted |= special
    if "t" in what:
        wanted |= 0o1000
    if sign == "+":
        return mode | wanted
    if sign == "-":
        return mode & ~wanted
    if not folder:  # chmod leaves a folder's set-id bits unless they are named
        touched |= special
    return (mode & ~touched) | wanted
