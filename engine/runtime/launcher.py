"""The daemon's side of the zygote: every operation on a running container, as a coroutine.

All state is the zygote's. A daemon that starts anew joins the running zygote, asks what there is, and is told of each
exit that nobody has heard yet.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.errors import Conflict, InvalidInput, NotFound, SystemFailure
from engine.kernel.cgroup.base import Cgroup
from engine.kernel.cgroup.host import cgroup
from engine.kernel.seccomp import SeccompError, compile_filter
from engine.runtime.line import Line
from engine.runtime.model import Attachment, ExecFailed, Exit, LogConfig, Overlay, RuntimeState
from engine.runtime.reaching import reach
from engine.runtime.spec import IDMapping, Linux, LinuxResources, LinuxSeccomp, Process, Spec
from engine.runtime.zygote import protocol

__all__ = ["Attachment", "ExecFailed", "Exit", "Launcher", "LogConfig", "Overlay", "RuntimeState"]

_Answer = TypeVar("_Answer")
_REVIVAL_SECONDS = 10.0


class Launcher:
    """One connection to one zygote. `on_exit(container, exec or None, exit)` is called on the loop."""

    def __init__(self, exec_root: Path, cgroup_parent: str) -> None:
        self.on_exit: Callable[[str, str | None, Exit], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        """The zygote has died, and its containers with it: `revive` starts another."""
        self._exec_root = exec_root
        self._cgroup_parent = cgroup_parent
        self._line = Line(self._exited, self._disconnected)
        self._waiting: dict[tuple[str, str | None], builtins.list[asyncio.Future[Exit]]] = {}
        self._exits: dict[tuple[str, str | None], Exit] = {}
        self._paused: set[str] = set()
        self._groups: dict[str, str] = {}
        self._ending = False

    @classmethod
    async def connect(cls, exec_root: Path, cgroup_parent: str) -> Launcher:
        """Joins the zygote that serves `exec_root`, or starts one after clearing what a dead one left."""
        launcher = cls(exec_root, cgroup_parent)
        exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        await launcher._join()
        return launcher

    def has(self, id: str) -> bool:  # noqa: A002
        """Whether this zygote has that container."""
        return id in self._groups

    async def revive(self) -> None:
        """After the zygote's death: ends what it left and starts a new one, which has no containers. Whoever asks for
        something meanwhile waits for it."""
        self._line.close()
        await self._join()

    async def _join(self) -> None:
        self._line.open(await reach(self._exec_root, self._cgroup_parent))
        answer, _ = await self._ask("list", {})
        if answer.get("protocol", 1) != protocol.VERSION:
            await self._part(answer)
            self._line.open(await reach(self._exec_root, self._cgroup_parent))
            answer, _ = await self._ask("list", {})
        for state in self._states(answer):
            self._groups[state.id] = state.cgroup
            if state.exit is not None:
                self._exits[state.id, None] = state.exit
            elif await asyncio.to_thread(cgroup(state.cgroup).frozen):
                self._paused.add(state.id)

    async def _part(self, answer: dict[str, Any]) -> None:
        """Ends a zygote of another version. Raises Conflict where it has containers: they would end with it."""
        running = [each["container"][:12] for each in answer["containers"] if each["status"] != "stopped"]
        if running:
            await self.close()
            raise Conflict(
                f"{len(running)} containers ({', '.join(running[:3])}, ...) run under another version of this engine,"
                " which can't hand them over: start that version again, stop them with it, and then start this one"
            )
        await self.shutdown()
        self._ending = False

    async def create(
        self,
        id: str,  # noqa: A002
        spec: Spec,
        *,
        rootfs: Overlay | None,
        log: LogConfig | None,
        open_stdin: bool = False,
        start: bool = False,
    ) -> int:
        """Gives birth to the container's init, which builds its world and then waits at the gate before its program;
        returns its pid on the host at once. Where it can't build it, `ready` and `start` say why.

        With `start` the gate is open: returns when the program runs, and raises as `start` does.
        Raises Conflict (the id is taken), SystemFailure.
        """
        group = self._group_of(id, spec.linux.cgroups_path)
        request = {
            "container": id,
            "rootfs": _plain(rootfs),
            "log": _plain(log),
            "open_stdin": open_stdin,
            "start": start,
            "seccomp": _filter(spec.linux.seccomp),
        }
        root = spec.root
        if rootfs is not None:
            root = msgspec.structs.replace(root, path=str(self._exec_root / "rootfs"))
        # The zygote takes the compiled filter; the profile would only fill its memory.
        linux = msgspec.structs.replace(spec.linux, seccomp=None, cgroups_path=group)
        plain = msgspec.json.encode(msgspec.structs.replace(spec, root=root, linux=linux))
        # Should it fail, or nobody wait for the answer, it may be there all the same, until it is deleted.
        self._groups.setdefault(id, group)
        answer, _ = await self._ask("create", request, spec=plain)
        return int(answer["pid"])

    async def mount(self, rootfs: Overlay, mappings: builtins.list[IDMapping]) -> int:
        """A root as a container with these mappings (none: the host's ids) would have it: a descriptor of the mount,
        which is seen nowhere and ends with it.

        Raises SystemFailure where the kernel or the file system can't do that.
        """
        linux = json.loads(msgspec.json.encode(Linux(uid_mappings=mappings, gid_mappings=mappings)))
        _, received = await self._ask("mount", {"rootfs": _plain(rootfs), "linux": linux})
        return received[0]

    async def ready(self, id: str) -> None:  # noqa: A002
        """Returns when the container waits at the gate. Raises SystemFailure where its world can't be built."""
        await self._ask("ready", {"container": id})

    async def start(self, id: str) -> None:  # noqa: A002
        """Opens the gate. Raises ExecFailed where the program cannot be started, SystemFailure as `ready`."""
        await self._ask("start", {"container": id})

    async def exec(
        self,
        id: str,  # noqa: A002
        exec_id: str,
        process: Process,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        seccomp: LinuxSeccomp | None = None,
    ) -> tuple[int, int | None]:
        """Starts a process in a running container; returns its pid and, with a terminal, the terminal's master.

        Without a terminal the descriptors become its streams (None: /dev/null); they stay the caller's to close.
        """
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        fds = () if process.terminal else tuple(null if fd is None else fd for fd in (stdin, stdout, stderr))
        request = {
            "container": id,
            "exec": exec_id,
            "process": json.loads(msgspec.json.encode(process)),
            "seccomp": _filter(seccomp),
        }
        try:
            answer, received = await self._ask("exec", request, fds)
        finally:
            os.close(null)
        return int(answer["pid"]), received[0] if received else None

    async def attach(self, id: str, *, unfinished: bool = False) -> Attachment:  # noqa: A002
        """Its streams from now on; with `unfinished` from the beginning of the line that is being written."""
        near, far = zip(os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC), strict=True)
        try:
            answer, received = await self._ask("attach", {"container": id, "unfinished": unfinished}, far)
        except BaseException:
            for fd in near:
                os.close(fd)
            raise
        finally:
            for fd in far:
                os.close(fd)
        return Attachment(near[0], near[1], received[0] if received else None, answer["at"])

    async def close_stdin(self, id: str) -> None:  # noqa: A002
        """The program reads end-of-file, once every attachment has closed its stdin too."""
        await self._ask("close_stdin", {"container": id})

    async def resize(self, id: str, rows: int, cols: int) -> None:  # noqa: A002
        await self._ask("resize", {"container": id, "rows": rows, "cols": cols})

    async def kill(
        self,
        id: str,  # noqa: A002
        signal: int,
        *,
        all: bool = False,  # noqa: A002
        exec_id: str | None = None,
    ) -> None:
        """Signals the init; with `all` every process; with `exec_id` that exec's."""
        await self._ask("kill", {"container": id, "signal": signal, "all": all, "exec": exec_id})

    async def pause(self, id: str) -> None:  # noqa: A002
        await self._on_cgroup(id, lambda group: group.freeze())
        self._paused.add(id)

    async def resume(self, id: str) -> None:  # noqa: A002
        await self._on_cgroup(id, lambda group: group.thaw())
        self._paused.discard(id)

    async def wait(self, id: str, exec_id: str | None = None) -> Exit:  # noqa: A002
        """Waits for the end; returns at once where it has been. Raises SystemFailure where nobody would tell.

        An execution's end that `on_exit` was told is not kept for who asks later.
        """
        known = self._exits.get((id, exec_id))
        if known is not None:
            if exec_id is not None:
                # Each end is kept until it is asked for once.
                del self._exits[id, exec_id]
            return known
        if not self.has(id):
            raise SystemFailure(f"container {id} is gone with the process that held it")
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((id, exec_id), []).append(future)
        return await future

    async def update(self, id: str, resources: LinuxResources) -> None:  # noqa: A002
        """Changes the limits that `resources` names."""
        plain = json.loads(msgspec.json.encode(resources))
        await self._on_cgroup(id, lambda group: group.apply(plain))

    async def stats(self, id: str) -> dict[str, Any]:  # noqa: A002
        """Usage as `Cgroup.stats` gives it."""
        return await self._on_cgroup(id, lambda group: group.stats())

    async def strain(self, id: str) -> tuple[int, dict[str, dict[str, int]]]:  # noqa: A002
        """How many of its processes the kernel has killed for want of memory, and `Cgroup.pressure`."""
        return await self._on_cgroup(id, lambda group: (group.oom_kills(), group.pressure()))

    async def processes(self, id: str) -> builtins.list[int]:  # noqa: A002
        """The pids of all its processes, on the host."""
        return await self._on_cgroup(id, lambda group: group.processes())

    async def delete(self, id: str) -> None:  # noqa: A002
        """Forgets a container that has ended or never began, with all it held. Deleting it twice is fine."""
        if id not in self._groups:
            return
        await self._ask("delete", {"container": id})
        self._groups.pop(id, None)
        for key in [key for key in self._exits if key[0] == id]:
            del self._exits[key]
        self._paused.discard(id)

    async def list(self) -> builtins.list[RuntimeState]:
        answer, _ = await self._ask("list", {})
        return self._states(answer)

    def _states(self, answer: dict[str, Any]) -> builtins.list[RuntimeState]:
        return [
            RuntimeState(
                state["container"],
                state["pid"],
                state["cgroup"],
                "paused" if state["container"] in self._paused else state["status"],
                state["tty"],
                state["started_at"],
                Exit(**state["exit"]) if "exit" in state else None,
            )
            for state in answer["containers"]
        ]

    async def close(self) -> None:
        """Leaves; the zygote and its containers stay."""
        self._ending = True
        self._line.close()

    async def shutdown(self) -> None:
        """Kills every container and the zygote."""
        self._ending = True
        await self._ask("shutdown", {})
        await self._line.gone.wait()
        self._line.close()

    def _group_of(self, name: str, wanted: str) -> str:
        """The spec's path, or one of our own; always one group a container, for it ends with it."""
        if ".." in wanted.split("/"):
            raise InvalidInput(f"invalid cgroupsPath {wanted!r}: it must not contain '..'")
        path = f"/{wanted.strip('/')}" if wanted.strip("/") else f"{self._cgroup_parent}/{name}"
        if any(path == taken and name != other for other, taken in self._groups.items()):
            raise Conflict(f"the control group {path} is another container's")
        return path

    async def _on_cgroup(self, name: str, act: Callable[[Cgroup], _Answer]) -> _Answer:
        path = self._groups.get(name)
        if path is None:
            raise NotFound(f"container {name} is not running")
        try:
            return await asyncio.to_thread(act, cgroup(path))
        except FileNotFoundError:
            raise NotFound(f"container {name} is not running") from None
        except OSError as error:
            raise SystemFailure(f"container {name}: {error.strerror}: {error.filename}", error.errno) from None

    async def _ask(
        self, op: str, request: dict[str, Any], fds: tuple[int, ...] = (), *, spec: bytes = b""
    ) -> tuple[dict[str, Any], builtins.list[int]]:
        if self._line.lost:
            await self._revived()
        return await self._line.ask(op, request, fds, spec=spec)

    async def _revived(self) -> None:
        try:
            async with asyncio.timeout(_REVIVAL_SECONDS if self.on_lost is not None else 0):
                await self._line.up.wait()
        except TimeoutError:
            raise SystemFailure("the process that holds the containers has died: restart the engine") from None

    def _exited(self, message: dict[str, Any]) -> None:
        key = (message["container"], message["exec"])
        ended = Exit(message["code"], message["oom_killed"], message["started_at"], message["finished_at"])
        waiting = self._waiting.pop(key, [])
        # Executions come and go by the thousand (health checks): where each end is told, nobody asks for it.
        if message["exec"] is None or (self.on_exit is None and not waiting):
            self._exits[key] = ended
        for future in waiting:
            if not future.done():
                future.set_result(ended)
        if self.on_exit is not None:
            self.on_exit(*key, ended)

    def _disconnected(self, failure: SystemFailure) -> None:
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(failure)
        for forgotten in (self._waiting, self._exits, self._paused, self._groups):
            forgotten.clear()
        if self.on_lost is not None and not self._ending:
            self.on_lost()


def _plain(value: Overlay | LogConfig | None) -> dict[str, Any] | None:
    if value is None:
        return None
    plain = asdict(value)
    return {
        key: str(item) if isinstance(item, Path) else [str(path) for path in item] if isinstance(item, tuple) else item
        for key, item in plain.items()
    }


def _filter(section: LinuxSeccomp | None) -> str | None:
    return None if section is None else _filter_of(msgspec.json.encode(section))


@functools.lru_cache(maxsize=64)
def _filter_of(raw: bytes) -> str:
    try:
        return compile_filter(json.loads(raw)).hex()
    except SeccompError as error:
        raise SystemFailure(str(error)) from None
