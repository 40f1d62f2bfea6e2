"""Execs, attached streams, terminals, followed logs, health checks: on a real kernel."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from pathlib import Path
from typing import Any

import pytest

from engine.containers.hostconfig import HostConfig, LogSettings
from engine.containers.model import HealthConfig
from engine.errors import Conflict, InvalidInput, NotFound
from tests.engine.containers.harness import Rooms, output
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MILLISECOND = 1_000_000


# Execs


async def test_an_exec_is_where_the_container_is(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100", hostname="inside", env=["A=config"], working_dir="/tmp")
    script = "hostname; echo $A $B; pwd; id -u; ps | grep -c '[s]leep 100$'; exit 4"
    assert await rooms.exec(made, "sh", "-c", script, env=["B=mine"]) == (4, "inside\nconfig mine\n/tmp\n0\n1\n")
    assert await rooms.exec(made, "sh", "-c", "id -u; pwd", user="alice", working_dir="/home/alice") == (
        0,
        "1000\n/home/alice\n",
    )


async def test_an_exec_reads_what_it_is_given(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100")
    data = b"x" * 300_000
    assert await rooms.exec(made, "wc", "-c", stdin=data) == (0, "300000\n")


@pytest.mark.parametrize(
    ("argv", "more", "code", "message"),
    [
        (["nope"], {}, 127, r"executable file not found in \$PATH"),
        (["/etc/passwd"], {}, 126, "permission denied"),
        (["true"], {"working_dir": "/none"}, 127, "chdir"),
        (["true"], {"user": "nobody-here"}, 126, "unable to find user"),
    ],
)
async def test_execs_that_fail(rooms: Rooms, argv: list[str], more: dict[str, Any], code: int, message: str) -> None:
    made = await rooms.start("sleep", "100")
    execution = rooms.containers.execs.create(rooms.get(made), argv, **more)
    with pytest.raises(InvalidInput, match=message):
        await rooms.containers.execs.start(execution)
    assert execution.json()["ExitCode"] == code
    with pytest.raises(Conflict, match="already run"):
        await rooms.containers.execs.start(execution)


async def test_a_detached_exec_and_its_exit(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100")
    execution = rooms.containers.execs.create(rooms.get(made), ["sh", "-c", "exit 6"])
    assert await rooms.containers.execs.start(execution, detach=True) is None
    await eventually(lambda: not execution.json()["Running"], "the end")
    assert execution.json()["ExitCode"] == 6
    with pytest.raises(NotFound, match="No such exec instance"):
        rooms.containers.execs.get("nope")


@pytest.mark.parametrize(("tty", "detach"), [(True, True), (True, False), (False, False)])
async def test_an_exec_that_nobody_listens_to_goes_on(rooms: Rooms, *, tty: bool, detach: bool) -> None:
    made = await rooms.start("sleep", "100")
    script = "until test -e /gone; do sleep 0.01; done; head -c 300000 /dev/zero && exit 6"
    execution = rooms.containers.execs.create(rooms.get(made), ["sh", "-c", script], tty=tty)
    session = await rooms.containers.execs.start(execution, detach=detach)
    if session is not None:
        await session.close()
    assert await rooms.exec(made, "touch", "/gone") == (0, "")
    await eventually(lambda: not execution.json()["Running"], "the end")
    assert execution.json()["ExitCode"] == 6


async def test_execs_end_with_their_container(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100")
    execution = rooms.containers.execs.create(rooms.get(made), ["sleep", "100"])
    session = await rooms.containers.execs.start(execution)
    assert session is not None
    assert rooms.containers.inspect(made)["ExecIDs"] == [execution.id]
    reading = asyncio.create_task(output(session))
    await rooms.containers.kill(made)
    await asyncio.wait_for(reading, 10)
    assert execution.json()["ExitCode"] == 137
    await session.close()
    with pytest.raises(Conflict, match="is not running"):
        await rooms.exec(made, "true")


async def test_execs_that_were_never_started_go_after_their_container(rooms: Rooms) -> None:
    gone, other = await rooms.start("sleep", "100"), await rooms.start("sleep", "100")
    execs = rooms.containers.execs
    made = [execs.create(rooms.get(gone), ["true"]).id for _ in range(257)]
    await rooms.containers.remove(gone, force=True)
    execs.create(rooms.get(other), ["true"])
    with pytest.raises(NotFound):
        execs.get(made[0])
    assert execs.get(made[-1]).id == made[-1]


async def test_an_exec_on_a_terminal(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100")
    script = "stty size; read x; stty size; echo got $x"
    execution = rooms.containers.execs.create(
        rooms.get(made), ["sh", "-c", script], tty=True, stdin=True, size=(33, 77)
    )
    session = await rooms.containers.execs.start(execution)
    assert session is not None
    assert session.tty
    heard = b""
    async for stream, data in session.output():
        assert stream == "stdout"
        heard += data
        if heard == b"33 77\r\n":
            rooms.containers.execs.resize(execution, 20, 100)
            await session.write(b"hello\n")
    await session.close()
    assert heard.replace(b"\r", b"") == b"33 77\nhello\n20 100\ngot hello\n"
    with pytest.raises(Conflict, match="no terminal"):
        rooms.containers.execs.resize(execution, 1, 1)


async def test_many_execs_at_once(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100")
    codes = await asyncio.gather(*(rooms.exec(made, "sh", "-c", f"exit {code}") for code in range(20)))
    assert [code for code, _ in codes] == list(range(20))


# Attached streams


async def test_attached_before_the_start_nothing_is_missed(rooms: Rooms) -> None:
    made = await rooms.create("sh", "-c", "echo out; echo err >&2; exit 1")
    session = await rooms.containers.streams.attach(rooms.get(made))
    await rooms.containers.start(made)
    heard = sorted([piece async for piece in session.output()])
    await session.close()
    assert heard == [("stderr", b"err\n"), ("stdout", b"out\n")]


async def test_who_left_before_the_start_is_forgotten(rooms: Rooms) -> None:
    container = rooms.get(await rooms.create("true"))
    left = []
    for _ in range(2):
        session = await rooms.containers.streams.attach(container)
        await session.close()
        left.append(weakref.ref(session))
    del session
    gc.collect()
    assert [one() is None for one in left] == [True, False]


async def test_attached_later_with_the_log_so_far(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "echo before; read x; echo after $x", open_stdin=True, stdin_once=True)
    await eventually(lambda: os.path.getsize(rooms.get(made).log_path), "the first line")
    session = await rooms.containers.streams.attach(rooms.get(made), stdin=True, logs=True)
    reading = asyncio.create_task(output(session))
    await session.write(b"word\n")
    assert await asyncio.wait_for(reading, 10) == b"before\nafter word\n"
    await session.close()


async def test_stdin_that_ends_for_one_and_stays_for_many(rooms: Rooms) -> None:
    once = await rooms.create("cat", open_stdin=True, stdin_once=True)
    session = await rooms.containers.streams.attach(rooms.get(once), stdin=True)
    await rooms.containers.start(once)
    await session.write(b"to the end")
    await session.close_stdin()
    assert await asyncio.wait_for(output(session), 10) == b"to the end"
    await session.close()
    many = await rooms.start("cat", open_stdin=True)
    for _ in range(2):
        session = await rooms.containers.streams.attach(rooms.get(many), stdin=True)
        await session.write(b"x\n")
        await session.close_stdin()
        await session.close()
    log = Path(rooms.get(many).log_path)
    await eventually(lambda: log.read_text().count("x\\n") == 2, "what was typed")
    assert rooms.get(many).state.running


async def test_a_terminal_and_its_size(rooms: Rooms) -> None:
    script = "trap 'stty size' WINCH; stty size; while ! read -t 1 x; do :; done; echo got $x"
    made = await rooms.create("sh", "-c", script, tty=True, open_stdin=True)
    session = await rooms.containers.streams.attach(rooms.get(made), stdin=True)
    await rooms.containers.start(made)
    await rooms.containers.streams.resize(rooms.get(made), 12, 34)
    heard = b""
    async for _, data in session.output():
        heard += data
        if b"12 34" in heard and b"typed" not in heard:
            await session.write(b"typed\n")
    await session.close()
    assert b"got typed\r\n" in heard
    await rooms.containers.wait(made)
    with pytest.raises(Conflict, match="not running"):
        await rooms.containers.streams.resize(rooms.get(made), 1, 1)


async def test_a_terminal_begins_with_the_size_that_was_asked_for(rooms: Rooms) -> None:
    made = await rooms.start("stty", "size", tty=True, host=HostConfig(console_size=(12, 34)))
    await rooms.containers.wait(made)
    assert (await rooms.said(made))[0] == b"12 34\r\n"


async def test_a_slow_reader_slows_the_container_and_loses_nothing(rooms: Rooms) -> None:
    made = await rooms.create("sh", "-c", "seq 1 100000")
    session = await rooms.containers.streams.attach(rooms.get(made))
    await rooms.containers.start(made)
    await asyncio.sleep(0.05)
    expected = b"".join(b"%d\n" % number for number in range(1, 100_001))
    assert await asyncio.wait_for(output(session), 30) == expected
    await session.close()
    assert (await rooms.said(made))[0] == expected


async def test_a_reader_that_goes_away_stops_nobody(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "seq 1 100000; exit 3")
    session = await rooms.containers.streams.attach(rooms.get(made))
    await session.close()
    assert (await asyncio.wait_for(rooms.containers.wait(made), 30)).code == 3


# Logs


async def test_a_followed_log_ends_with_the_container(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.02; done")
    heard = [(stream, data) async for stream, _, data in rooms.containers.streams.logs(rooms.get(made), follow=True)]
    assert [data for stream, data in heard if stream == "stdout"] == [b"1\n", b"2\n", b"3\n"]
    assert [data for stream, data in heard if stream == "stderr"] == [b"e1\n", b"e2\n", b"e3\n"]


async def test_rotation_by_size_and_count(rooms: Rooms) -> None:
    settings = LogSettings("json-file", {"max-size": "4k", "max-file": "3"})
    made = await rooms.start("seq", "1", "1000", host=HostConfig(network_mode="none", log_config=settings))
    await rooms.containers.wait(made)
    folder = rooms.config.data_root / "containers" / made
    sizes = [path.stat().st_size for path in folder.glob("*-json.log*")]
    assert len(sizes) == 3
    assert max(sizes) <= 4096
    numbers = (await rooms.said(made))[0].split()
    assert numbers == [b"%d" % number for number in range(1001 - len(numbers), 1001)]


async def test_no_log(rooms: Rooms) -> None:
    made = await rooms.start("echo", "x", host=HostConfig(network_mode="none", log_config=LogSettings("none")))
    await rooms.containers.wait(made)
    with pytest.raises(InvalidInput, match="does not support reading"):
        await rooms.said(made)


# Health


def check(*test: str, **more: int) -> HealthConfig:
    return HealthConfig(**({"test": list(test), "interval": 20 * MILLISECOND, "retries": 2} | more))  # type: ignore[arg-type]


async def test_health_comes_and_goes(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100", healthcheck=check("CMD-SHELL", "echo looking; test -e /fine"))

    def status() -> str:
        health = rooms.get(made).state.health
        return health.status if health else ""

    assert status() == "starting"
    await eventually(lambda: status() == "unhealthy", "failing twice")
    assert (await rooms.exec(made, "touch", "/fine"))[0] == 0
    await eventually(lambda: status() == "healthy", "success")
    health = rooms.containers.inspect(made)["State"]["Health"]
    assert health["FailingStreak"] == 0
    assert health["Log"][-1]["ExitCode"] == 0
    assert health["Log"][-1]["Output"] == "looking\n"
    told = [event.action for event in rooms.events.past(0) if event.actor == made]
    assert "health_status: unhealthy" in told
    looks = [action for action in told if action.startswith("exec_")]
    assert [action.partition(":")[0] for action in looks[:3]] == ["exec_create", "exec_start", "exec_die"]
    assert told[-1] == "health_status: healthy"
    await rooms.containers.stop(made, timeout=0)
    await rooms.containers.start(made)
    assert status() == "starting"


async def test_a_probe_that_hangs_is_killed(rooms: Rooms) -> None:
    config = check("CMD", "sh", "-c", "echo looking; sleep 100", timeout=50 * MILLISECOND, retries=1)
    made = await rooms.start("sleep", "1000", healthcheck=config)
    await eventually(lambda: rooms.containers.inspect(made)["State"]["Health"]["Log"], "a result")
    result = rooms.containers.inspect(made)["State"]["Health"]["Log"][0]
    assert result["ExitCode"] == -1
    assert result["Output"] in (
        "Health check exceeded timeout (50ms): looking\n",
        "Health check exceeded timeout (50ms)",
    )


async def test_failures_in_the_start_period_do_not_count(rooms: Rooms) -> None:
    config = check("CMD", "false", start_period=3_600_000 * MILLISECOND, start_interval=10 * MILLISECOND)
    made = await rooms.start("sleep", "100", healthcheck=config)
    await eventually(lambda: len(rooms.containers.inspect(made)["State"]["Health"]["Log"]) >= 4, "four results")
    assert rooms.containers.inspect(made)["State"]["Health"]["Status"] == "starting"


# Looking in


async def test_top(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "sleep 1234 & wait", user="alice")
    first = rooms.get(made).state.pid
    children = Path(f"/proc/{first}/task/{first}/children")
    (child,) = (await eventually(children.read_text, "the child")).split()
    await eventually(lambda: Path(f"/proc/{child}/cmdline").read_text().startswith("sleep"), "its program")
    assert await rooms.containers.usage.top(rooms.get(made), "-eo user,gid,pid,args") == {
        "Titles": ["USER", "GID", "PID", "COMMAND"],
        "Processes": [
            ["alice", "1001", str(first), "sh -c sleep 1234 & wait"],
            ["alice", "1001", child, "sleep 1234"],
        ],
    }


async def test_stats(rooms: Rooms) -> None:
    host = HostConfig(network_mode="none", memory=64 << 20, pids_limit=50)
    made = await rooms.start("sh", "-c", "while :; do :; done", host=host)
    first = await rooms.containers.usage.stats(rooms.get(made), one_shot=True)
    assert first["memory_stats"]["limit"] == 64 << 20
    assert first["pids_stats"]["limit"] == 50
    second = await rooms.containers.usage.stats(rooms.get(made))
    assert second["precpu_stats"]["cpu_usage"]["total_usage"] < second["cpu_stats"]["cpu_usage"]["total_usage"]
    await rooms.containers.kill(made)
    assert (await rooms.containers.usage.stats(rooms.get(made)))["memory_stats"] == {}
