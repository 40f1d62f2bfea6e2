"""Start, stop, kill, wait, exit codes, restarts, pause, rename, update, removal: on a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import psutil
import pytest

from engine.containers.hostconfig import HostConfig, Limits, RestartPolicy
from engine.errors import Conflict, EngineError, InvalidInput, NotFound
from engine.kernel.cgroup.host import cgroup
from tests.engine.containers.harness import Rooms
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


def host(**more: Any) -> HostConfig:
    return HostConfig(network_mode="none", **more)


def heard(rooms: Rooms, ref: str) -> list[str]:
    """The actions told of a container, in order."""
    container = rooms.get(ref)
    return [event.action for event in rooms.events.past(0) if event.actor == container.id]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("true", 0),
        ("exit 42", 42),
        ("exit 255", 255),
        # The first process of a pid namespace is immune to its own signals.
        ("kill -9 $$; exit 3", 3),
        ("sh -c 'kill -TERM $$'; exit $?", 143),
    ],
)
async def test_exit_codes(rooms: Rooms, script: str, code: int) -> None:
    exited, _, _ = await rooms.run("sh", "-c", script)
    assert (exited.code, exited.oom_killed) == (code, False)


async def test_any_port_of_its_own_network_can_be_bound_by_anybody(rooms: Rooms) -> None:
    serves = "nc -l -p 80 -e echo hello & until nc 127.0.0.1 80 </dev/null; do :; done"
    script = f"{serves}; cat /proc/sys/net/ipv4/ping_group_range"
    host = HostConfig(network_mode="none", cap_drop=["ALL"])
    exited, said, _ = await rooms.run("sh", "-c", script, user="alice", host=host)
    assert (exited.code, said.split()) == (0, ["hello", "0", "65535"])


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["nope"], 127, "executable file not found in \\$PATH"),
        (["/bin/nope"], 127, "no such file or directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "permission denied"),
        (["/etc/passwd/x"], 127, "no such file or directory"),
    ],
)
async def test_what_can_not_be_executed(rooms: Rooms, argv: list[str], code: int, message: str) -> None:
    made = await rooms.create(*argv)
    with pytest.raises(InvalidInput, match=message):
        await rooms.containers.start(made)
    state = rooms.get(made).state
    assert (state.status, state.exit_code, state.pid) == ("created", code, 0)
    assert made not in [state.id for state in await rooms.launcher.list()]
    await rooms.containers.remove(made)


async def test_a_script_without_an_interpreter_line(rooms: Rooms) -> None:
    made = await rooms.create("/script")
    script = rooms.config.data_root / "containers" / made / "upper/script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    with pytest.raises(InvalidInput, match="exec format error"):
        await rooms.containers.start(made)
    assert rooms.get(made).state.exit_code == 126


async def test_streams_and_their_log(rooms: Rooms) -> None:
    exited, out, err = await rooms.run("sh", "-c", "echo out; echo err >&2; printf no-newline; exit 3")
    assert (exited.code, out, err) == (3, "out\nno-newline", "err\n")


async def test_stop_sends_the_signal_and_waits(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "trap 'echo bye; exit 7' INT; echo ready; while :; do sleep 0.01; done",
                             stop_signal="SIGINT", host=HostConfig())  # fmt: skip
    await eventually(lambda: b"ready" in log(rooms, made), "the trap")
    assert await rooms.containers.stop(made, timeout=30)
    state = rooms.get(made).state
    assert (state.status, state.exit_code) == ("exited", 7)
    assert not rooms.get(made).network_settings.sandbox_key, "its ports are free for the next one"
    assert await rooms.said(made) == (b"ready\nbye\n", b"")
    assert not await rooms.containers.stop(made)
    assert heard(rooms, made) == ["create", "start", "kill", "die", "stop"]


def log(rooms: Rooms, ref: str) -> bytes:
    with contextlib.suppress(FileNotFoundError), open(rooms.get(ref).log_path, "rb") as file:
        return file.read()
    return b""


async def test_who_does_not_listen_is_killed(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done", stop_timeout=0)
    await eventually(lambda: b"ready" in log(rooms, made), "the trap")
    assert await rooms.containers.stop(made)
    assert rooms.get(made).state.exit_code == 137
    assert heard(rooms, made).count("kill") == 2


async def test_kill(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100")
    await rooms.containers.kill(made, "SIGTERM")
    # The first process has no handler: the signal does nothing, as in Docker.
    assert rooms.get(made).state.status == "running"
    await rooms.containers.kill(made)
    assert rooms.get(made).state.exit_code == 137
    with pytest.raises(Conflict, match="not running"):
        await rooms.containers.kill(made)
    with pytest.raises(InvalidInput, match="invalid signal"):
        await rooms.containers.kill(made, "SIGNOPE")


async def test_who_forks_away_dies_with_the_container(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "(setsid sh -c 'sleep 1000 & sleep 1000' &) ; read x", open_stdin=True)
    pids = await eventually(lambda: len(children(rooms, made)) >= 3 and children(rooms, made), "the children")
    await rooms.containers.kill(made)
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def children(rooms: Rooms, ref: str) -> list[int]:
    return cgroup(f"{rooms.config.cgroup_parent}/{rooms.get(ref).id}").processes()


async def test_an_oom_kill_is_seen(rooms: Rooms) -> None:
    eats = "x=12345678; while :; do x=$x$x; done"
    limits = host(memory=16 << 20, memory_swap=16 << 20)
    made = await rooms.start("sh", "-c", eats, host=limits)
    exited = await rooms.containers.wait(made)
    assert (exited.code, exited.oom_killed) == (137, True)
    assert rooms.containers.inspect(made)["State"]["OOMKilled"] is True
    assert "oom" in heard(rooms, made)


async def test_start_again_and_restart(rooms: Rooms) -> None:
    made = await rooms.start(
        "sh", "-c", "echo $(ls /mark 2>&1 | wc -l); touch /mark; [ -e /stay ] && sleep 100; exit 5"
    )
    assert (await rooms.containers.wait(made)).code == 5
    await rooms.containers.start(made)
    assert (await rooms.containers.wait(made)).code == 5
    with pytest.raises(NotFound):
        await rooms.containers.start("nobody")
    assert (await rooms.said(made))[0].startswith(b"1\n1\n")
    (rooms.config.data_root / "containers" / made / "upper/stay").touch()
    assert await rooms.containers.start(made)
    assert not await rooms.containers.start(made)
    before = rooms.get(made).state.pid
    await rooms.containers.restart(made, timeout=0)
    assert rooms.get(made).state.pid not in (0, before)
    assert rooms.get(made).state.status == "running"


@pytest.mark.parametrize("condition", ["next-exit", "removed"])
async def test_waiting(rooms: Rooms, condition: Any) -> None:
    made = await rooms.create("sh", "-c", "exit 9", host=host(auto_remove=condition == "removed"))
    waiting = [asyncio.create_task(rooms.containers.wait(made, condition)) for _ in range(3)]
    await asyncio.sleep(0)
    await rooms.containers.start(made)
    for each in waiting:
        assert (await asyncio.wait_for(each, 10)).code == 9
    if condition == "removed":
        with pytest.raises(NotFound):
            rooms.get(made)


async def test_waiting_for_what_does_not_run(rooms: Rooms) -> None:
    made = await rooms.create("sh", "-c", "exit 9")
    assert (await rooms.containers.wait(made)).code == 0
    await rooms.containers.start(made)
    assert (await asyncio.wait_for(rooms.containers.wait(made), 10)).code == 9
    assert (await rooms.containers.wait(made)).code == 9
    with pytest.raises(InvalidInput, match="condition"):
        await rooms.containers.wait(made, "someday")  # type: ignore[arg-type]
    abandoned = asyncio.create_task(rooms.containers.wait(made, "next-exit"))
    await asyncio.sleep(0)
    abandoned.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned


async def test_a_container_may_remove_itself(rooms: Rooms) -> None:
    made = await rooms.create("true", host=host(auto_remove=True), volumes={"/data": {}})
    (volume,) = [point.name for point in rooms.get(made).mounts]
    gone = asyncio.create_task(rooms.containers.wait(made, "removed"))
    await asyncio.sleep(0)
    await rooms.containers.start(made)
    await asyncio.wait_for(gone, 10)
    assert not (rooms.config.data_root / "containers" / made).exists()
    with pytest.raises(NotFound):
        rooms.containers.volumes.get(volume)


async def test_a_restart_removes_nothing(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "1000", host=host(auto_remove=True))
    await rooms.containers.restart(made, timeout=0)
    assert rooms.get(made).state.running
    await rooms.containers.kill(made)
    await eventually(lambda: all(one.id != made for one in rooms.containers.list(all=True)), "the removal")


async def test_restart_on_failure_up_to_a_count(rooms: Rooms) -> None:
    policy = RestartPolicy("on-failure", 2)
    made = await rooms.start("sh", "-c", "echo x; exit 3", host=host(restart_policy=policy))
    await eventually(lambda: rooms.get(made).state.status == "exited", "the last exit")
    assert rooms.get(made).restart_count == 2
    assert (await rooms.said(made))[0] == b"x\nx\nx\n"
    assert rooms.get(made).state.exit_code == 3


async def test_always_means_until_somebody_stops_it(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "echo x", host=host(restart_policy=RestartPolicy("always")))
    await eventually(lambda: rooms.get(made).restart_count >= 2, "two restarts")
    await rooms.containers.stop(made, timeout=0)
    assert rooms.get(made).state.status == "exited"
    count = rooms.get(made).restart_count
    await asyncio.sleep(0.3)
    assert (rooms.get(made).state.status, rooms.get(made).restart_count) == ("exited", count)


async def test_a_restart_that_fails_is_the_last(rooms: Rooms) -> None:
    made = await rooms.create("/run-me", host=host(restart_policy=RestartPolicy("always")))
    program = rooms.config.data_root / "containers" / made / "upper/run-me"
    program.write_text("#!/bin/sh\nrm /run-me\n")
    program.chmod(0o755)
    await rooms.containers.start(made)
    await eventually(lambda: rooms.get(made).state.error, "a start that fails")
    state = rooms.get(made).state
    assert (state.status, state.exit_code) == ("exited", 127)
    assert made not in [state.id for state in await rooms.launcher.list()]


async def test_pause(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "while :; do echo x; sleep 0.001; done")
    await rooms.containers.pause(made)
    with pytest.raises(Conflict, match="already paused"):
        await rooms.containers.pause(made)
    size = len(log(rooms, made))
    await asyncio.sleep(0.05)
    assert len(log(rooms, made)) - size <= 200
    with pytest.raises(Conflict, match="is paused"):
        await rooms.exec(made, "true")
    with pytest.raises(Conflict, match="container is paused"):
        await rooms.containers.remove(made)
    await rooms.containers.unpause(made)
    size = len(log(rooms, made))
    await eventually(lambda: len(log(rooms, made)) > size + 500, "more output")
    with pytest.raises(Conflict, match="not paused"):
        await rooms.containers.unpause(made)


@pytest.mark.parametrize("how", ["stop", "kill", "remove"])
async def test_a_paused_container_can_be_ended(rooms: Rooms, how: str) -> None:
    made = await rooms.start("sleep", "100")
    await rooms.containers.pause(made)
    if how == "stop":
        await asyncio.wait_for(rooms.containers.stop(made, timeout=0), 20)
    elif how == "kill":
        await asyncio.wait_for(rooms.containers.kill(made), 20)
    else:
        await asyncio.wait_for(rooms.containers.remove(made, force=True), 20)
    if how != "remove":
        assert rooms.get(made).state.exit_code == 137


async def test_names(rooms: Rooms) -> None:
    made = await rooms.create("true", name="first")
    with pytest.raises(Conflict, match='"/first" is already in use'):
        await rooms.create("true", name="first")
    await rooms.containers.rename("first", "second")
    assert rooms.get("/second").id == rooms.get(made[:12]).id == made
    with pytest.raises(NotFound):
        rooms.get("first")
    with pytest.raises(InvalidInput, match="same name"):
        await rooms.containers.rename("second", "/second")
    with pytest.raises(InvalidInput, match="Invalid container name"):
        await rooms.containers.rename("second", "../second")
    other = await rooms.create("true", name="first")
    with pytest.raises(Conflict):
        await rooms.containers.rename("second", "first")
    assert rooms.get("first").id == other


async def test_update_changes_the_limits_of_a_running_container(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100", host=host(memory=32 << 20))
    await rooms.containers.update(made, Limits(memory=64 << 20, memory_swap=128 << 20, pids_limit=9, cpu_quota=20_000))
    stats = await rooms.launcher.stats(made)
    assert (stats["memory"]["limit"], stats["pids"]["limit"]) == (64 << 20, 9)
    with pytest.raises(InvalidInput, match="already set memoryswap"):
        await rooms.containers.update(made, Limits(memory=256 << 20))
    with pytest.raises(InvalidInput, match="6MB"):
        await rooms.containers.update(made, Limits(memory=1))
    await rooms.containers.update(made, Limits(), RestartPolicy("always"))
    shown = rooms.containers.inspect(made)["HostConfig"]
    assert (shown["Memory"], shown["PidsLimit"], shown["RestartPolicy"]["Name"]) == (64 << 20, 9, "always")


async def test_removal(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100", volumes={"/data": {}})
    with pytest.raises(Conflict, match="container is running: stop the container"):
        await rooms.containers.remove(made)
    (volume,) = [point.name for point in rooms.get(made).mounts]
    with pytest.raises(Conflict, match="in use"):
        rooms.containers.volumes.remove(volume)
    gone = asyncio.create_task(rooms.containers.wait(made, "removed"))
    await asyncio.sleep(0)
    await rooms.containers.remove(made, force=True)
    await asyncio.wait_for(gone, 10)
    assert rooms.containers.volumes.get(volume).anonymous
    rooms.containers.volumes.remove(volume)
    with pytest.raises(NotFound):
        await rooms.containers.remove(made)


async def test_everything_at_once(rooms: Rooms) -> None:
    """Whatever order the operations come in, they end, and the container is gone."""
    made = await rooms.start("sleep", "100")

    async def quietly(work: Any) -> None:
        with contextlib.suppress(EngineError):
            await work

    containers = rooms.containers
    works = [
        *(containers.pause(made), containers.stop(made, timeout=0), containers.unpause(made), containers.kill(made)),
        *(containers.restart(made, timeout=0), containers.start(made), containers.stop(made, timeout=0)),
        *(containers.rename(made, "renamed"), rooms.exec(made, "true"), containers.remove(made, force=True)),
    ]
    await asyncio.wait_for(asyncio.gather(*(quietly(work) for work in works)), 30)
    await quietly(containers.remove(made, force=True))
    assert made not in [container.id for container in containers.list(all=True)]
    assert made not in [state.id for state in await rooms.launcher.list()]
    assert not os.path.exists(f"{rooms.config.data_root}/containers/{made}")


async def test_prune_takes_only_what_does_not_run(rooms: Rooms) -> None:
    runs = await rooms.start("sleep", "100", labels={"of": "prune"})
    ended = await rooms.start("true", labels={"of": "prune"})
    await rooms.containers.wait(ended)
    removed, freed = await rooms.containers.prune({"label": ["of=prune"]})
    assert list(removed) == [ended]
    assert freed >= 0
    assert rooms.get(runs).state.running
