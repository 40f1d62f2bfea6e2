"""The options of ps(1) that say what to show. Which processes is never a question: the container's."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from engine.containers.pscolumns import Show, find
from engine.errors import InvalidInput

_FORMATS = {
    "": "pid,tname,time,ucmd",
    "bsd": "pid,tname,stat,bsdtime,args",
    "-f": "uid_name,pid,ppid,c,stime,tname,time,cmd",
    "-F": "uid_name,pid,ppid,c,sz,rss,psr,stime,tname,time,cmd",
    "-j": "pid,pgid,sid,tname,time,ucmd",
    "-l": "f,s,uid,pid,ppid,c,opri,ni,sz,tname,time,ucmd",
    "u": "user,pid,pcpu,pmem,vsz,rss,tname,stat,start_time,bsdtime,args",
    "j": "ppid,pid,pgid,sid,tname,tpgid,stat,uid,bsdtime,args",
}
_SELECTING, _BSD_SELECTING = "eAadxw", "axgrTw"
"""Options that only choose processes, or how wide a terminal is: nothing to do for them."""
_MISTAKEN_DASH = re.compile(r"-[axw]*u[axw]*")


@dataclass(frozen=True)
class Column:
    title: str
    show: Show


def parse(arguments: str) -> list[Column]:
    """The columns that `ps ARGUMENTS` shows. Raises InvalidInput for what is not understood, or shows no PID."""
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise InvalidInput(f"invalid ps arguments {arguments!r}: {error}") from None
    wanted: list[str] = []
    style = ""
    left = iter(words)
    for word in left:
        letters, dash = word.removeprefix("-"), "-" if word.startswith("-") else ""
        if word.startswith("--format"):
            wanted.append(word.partition("=")[2] or next(left, ""))
            continue
        if word.startswith("--"):
            raise _unknown(word)
        if _MISTAKEN_DASH.fullmatch(word):
            dash = ""
        for at, letter in enumerate(letters):
            if letter in "oO":
                wanted.append(letters[at + 1 :] or next(left, ""))
                break
            if dash + letter in _FORMATS:
                style = dash + letter
            elif letter in (_SELECTING if dash else _BSD_SELECTING):
                style = style or ("" if dash else "bsd")
            else:
                raise _unknown(dash + letter)
    columns = [column for text in wanted or [_FORMATS[style]] for column in _columns(text)]
    if not any(column.show is _PID for column in columns):
        raise InvalidInput("Couldn't find PID field in ps output")
    return columns


def _columns(text: str) -> list[Column]:
    """`pid,user=WHO`: what stands behind the sign is a title of one's own, up to the end."""
    found = []
    while text := text.strip(", "):
        name, sign, rest = re.fullmatch(r"([^=,\s]*)(=?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        column = find(name)
        if column is None:
            raise InvalidInput(f"ps: unknown user-defined format specifier {name!r}")
        title, show = column
        found.append(Column(rest if sign else title, show))
        text = "" if sign else rest
    return found


def _unknown(option: str) -> InvalidInput:
    return InvalidInput(f"ps: option {option} is not supported: use -ef, aux or -o COLUMN,COLUMN")


_PID = find("pid")[1]  # type: ignore[index]
