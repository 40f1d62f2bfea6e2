from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.containers import psoptions, users
from engine.containers.layered import Layered
from engine.containers.processes import IdMap, read
from engine.containers.top import top
from engine.errors import InvalidInput
from tests.patience import wait_for

HOST = IdMap(((0, 0, 2**32 - 1),))


@pytest.fixture(scope="module")
def sleeper() -> Iterator[int]:
    """A process that changes no more."""
    with subprocess.Popen(["sleep", "600"]) as process:
        wait_for(
            lambda: (found := read(process.pid, HOST, HOST)) and f"{found.args} {found.state}" == "sleep 600 S", "it"
        )
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-ef",
        "aux",
        "-aux",
        "axj",
        "-eo pid,ppid,pgid,sid,user,group,uid,gid,comm,args",
        "-o pid,stat,s,ni,pri,nlwp,vsz,rss,sz,%mem,time,tty,stime",
        "-e --format=cmd,pid",
        "-o user=WHO -o pid=",
        "-j",
        "-ww -o lstart,pid",
    ],
)
def test_it_shows_what_ps_shows(sleeper: int, arguments: str) -> None:
    shown = top(os.getpid(), [sleeper], arguments, Layered([Path("/")]))
    words = shlex.split(arguments or "-ef")
    said = subprocess.run(["ps", *words, "-q", str(sleeper)], capture_output=True, text=True, check=True).stdout
    titles, line = (text.split() for text in said.splitlines())
    assert " ".join(shown["Titles"]).split() == titles
    assert [" ".join(row).split() for row in shown["Processes"]] == [line]


@pytest.mark.parametrize("arguments", ["-o comm", "--nope", "'", "-o pid,nope", "-p 1", "f", "-C x"])
def test_what_is_no_way_to_show_them(arguments: str) -> None:
    with pytest.raises(InvalidInput):
        psoptions.parse(arguments)


def test_ids_are_those_inside() -> None:
    ids = IdMap(((0, 100000, 1000), (1000, 7, 1)))
    assert [ids.inside(one) for one in (100000, 100999, 7, 101000)] == [0, 999, 1000, 101000]
    assert users.names(b"root:x:0:0\ntoor:x:0:0\nbad:x:y\nalice:x:1000:1:") == {0: "root", 1000: "alice"}


def test_who_has_ended_is_left_out() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert read(process.pid, HOST, HOST) is None
