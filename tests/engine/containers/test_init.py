"""`--init`: a first process that passes signals on, reaps, and ends as the program does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from engine.containers.hostconfig import HostConfig
from engine.containers.model import from_json
from engine.errors import EngineError
from tests.engine.containers.harness import Rooms
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


def host(**more: Any) -> HostConfig:
    return from_json(HostConfig, {"NetworkMode": "none", "Init": True, **more})


async def said(rooms: Rooms, made: str, word: str) -> None:
    log = Path(rooms.get(made).log_path)
    await eventually(lambda: log.exists() and word in log.read_text(), f"{word} in the log")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -15 $$; sleep 10", 143)]
)
async def test_it_ends_as_the_program_does(rooms: Rooms, script: str, code: int) -> None:
    exited, _, _ = await rooms.run("sh", "-c", script, host=host())
    assert exited.code == code


async def test_it_shows_as_init_and_the_program_is_its_child(rooms: Rooms) -> None:
    look = "cat /proc/1/comm; tr -d '\\000' </proc/1/cmdline; echo; echo $$ $PPID; grep Sig.*Blk /proc/self/status"
    _, out, err = await rooms.run("sh", "-c", look, host=host())
    name, line, pids, blocked = out.splitlines()
    assert (name, line, pids.split()[1], err) == ("init", "init", "1", "")
    assert int(blocked.split()[1], 16) == 0


async def test_it_reaps_what_is_left_behind(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "(sh -c 'sleep 0.01 &' &); sleep 0.2; echo done; exec sleep 100", host=host())
    await said(rooms, made, "done")
    state = "grep -h State /proc/[0-9]*/status"
    assert "zombie" not in (await rooms.exec(made, "sh", "-c", state))[1]
    # What an execution leaves behind is its to reap as well.
    await rooms.exec(made, "sh", "-c", "(sleep 0.01 &)")
    for _ in range(100):
        if "zombie" not in (left := (await rooms.exec(made, "sh", "-c", state))[1]):
            break
    assert "zombie" not in left
    await rooms.containers.remove(made, force=True)


async def test_a_stop_is_passed_on(rooms: Rooms) -> None:
    made = await rooms.start(
        "sh", "-c", "trap 'echo heard; exit 7' TERM; echo up; while :; do sleep 0.01; done", host=host()
    )
    await said(rooms, made, "up")
    await rooms.containers.stop(made, 30)
    assert rooms.get(made).state.exit_code == 7
    await said(rooms, made, "heard")
    # A program that does nothing about it ends too, which as a first process it would not.
    await rooms.containers.remove(made)
    made = await rooms.start("sleep", "100", host=host())
    await rooms.containers.stop(made, 30)
    assert rooms.get(made).state.exit_code == 143
    await rooms.containers.restart(made, 30)
    assert (await rooms.exec(made, "cat", "/proc/1/comm"))[1] == "init\n"
    await rooms.containers.remove(made, force=True)


async def test_on_a_terminal_the_program_is_in_the_foreground(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "cut -d' ' -f 5,8 /proc/self/stat; tty", host=host(), tty=True)
    await rooms.containers.wait(made)
    out, _ = await rooms.said(made)
    groups, terminal = out.decode().split("\r\n")[:2]
    assert len(set(groups.split())) == 1
    assert terminal.startswith("/dev/")
    await rooms.containers.remove(made)


async def test_a_program_that_is_not_there(rooms: Rooms) -> None:
    made = await rooms.create("nowhere", host=host())
    with pytest.raises(EngineError, match="not found"):
        await rooms.containers.start(made)
    assert rooms.get(made).state.exit_code == 127
    await rooms.containers.remove(made)


async def test_it_has_no_descriptors_no_more_rights_and_little_memory(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "echo up; exec sleep 100", host=host(), user="alice")
    await said(rooms, made, "up")
    pid = rooms.get(made).state.pid
    assert os.listdir(f"/proc/{pid}/fd") == []
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (int(status["CapEff"], 16), status["Seccomp"], status["NoNewPrivs"]) == (0, "2", "1")
    assert status["Uid"].split()[0] != "0"
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private"))
    assert private < 4096, f"{private} KiB"
    await rooms.containers.remove(made, force=True)


async def test_many_come_and_go(rooms: Rooms) -> None:
    ends = await asyncio.gather(*(rooms.run("sh", "-c", "(true &); exit 3", host=host()) for _ in range(8)))
    assert {exited.code for exited, _, _ in ends} == {3}
