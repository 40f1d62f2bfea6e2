"""`docker exec`: further processes in a running container."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import fcntl
import functools
import os
import secrets
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec

from engine.containers import environment, idranges, pipes, rootview, security, specs, users
from engine.containers.hostconfig import HostConfig
from engine.containers.model import Container
from engine.containers.room import Room
from engine.containers.session import Session, Stream
from engine.errors import Conflict, InvalidInput, NotFound, SystemFailure
from engine.runtime.launcher import ExecFailed
from engine.runtime.spec import LinuxSeccomp, Process

if TYPE_CHECKING:
    from engine.runtime.launcher import Exit

_MOST_FINISHED = 256
_Run = Callable[[dict[str, int]], Awaitable[tuple[int, int | None]]]


@dataclass
class Execution:
    """One of them, from its creation until a while after its end."""

    id: str
    container: Container
    cmd: list[str]
    env: list[str]
    user: str
    working_dir: str
    privileged: bool
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    detach_keys: bytes = b""
    size: tuple[int, int] | None = None
    pid: int = 0
    started: bool = False
    exit_code: int | None = None
    terminal: int | None = None
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def running(self) -> bool:
        return self.started and self.exit_code is None

    def json(self) -> dict[str, Any]:
        """Docker's exec JSON."""
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": {
                "tty": self.tty,
                "entrypoint": self.cmd[0],
                "arguments": self.cmd[1:],
                "privileged": self.privileged,
                "user": self.user,
            },
            "OpenStdin": self.stdin,
            "OpenStderr": self.stderr,
            "OpenStdout": self.stdout,
            "CanRemove": self.exit_code is not None,
            "ContainerID": self.container.id,
            "DetachKeys": base64.b64encode(self.detach_keys).decode(),
            "Pid": self.pid,
        }


class ExecSession:
    """The `Session` of one execution."""

    def __init__(self, execution: Execution, readers: dict[str, pipes.Reader], writer: pipes.Writer | None) -> None:
        self.tty = execution.tty
        self._execution = execution
        self._readers = readers
        self._writer = writer

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        pieces = pipes.merged(self._readers, self._execution.ended)
        async with contextlib.aclosing(pieces):
            async for name, data in pieces:
                yield cast(Stream, name), data
        # Whoever reads to the end and then asks for the exit code must find it.
        await asyncio.shield(self._execution.ended)

    async def write(self, data: bytes) -> None:
        if self._writer is not None:
            await self._writer.write(data)

    async def close_stdin(self) -> None:
        if self._writer is not None and not self.tty:
            self._writer.close()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        for reader in self._readers.values():
            reader.drain()


class Executions:
    """All executions of one engine. They do not survive it: their processes do."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._all: dict[str, Execution] = {}

    def get(self, exec_id: str) -> Execution:
        """Raises NotFound."""
        try:
            return self._all[exec_id]
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}") from None

    def of(self, container: Container) -> Sequence[str]:
        return [one.id for one in self._all.values() if one.container is container and one.exit_code is None]

    def create(
        self,
        container: Container,
        cmd: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        working_dir: str = "",
        privileged: bool = False,
        tty: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: bytes = b"",
        size: tuple[int, int] | None = None,
    ) -> Execution:
        """Raises Conflict unless the container runs."""
        self._must_run(container)
        if not cmd or any("\0" in word for word in cmd):
            raise InvalidInput("No exec command specified")
        execution = Execution(
            id=secrets.token_hex(32),
            container=container,
            cmd=list(cmd),
            env=list(env),
            user=user,
            working_dir=working_dir,
            privileged=privileged,
            tty=tty,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            detach_keys=detach_keys,
            size=size,
        )
        self._forget_some()
        self._all[execution.id] = execution
        self._tell(execution, f"exec_create: {' '.join(cmd)}")
        return execution

    async def start(
        self, execution: Execution, *, detach: bool = False, size: tuple[int, int] | None = None
    ) -> Session | None:
        """Raises Conflict when it was started before, InvalidInput where the command can't be executed."""
        if execution.started:
            raise Conflict(f"Error: Exec command {execution.id} has already run")
        self._must_run(execution.container)
        execution.started = True
        self._tell(execution, f"exec_start: {' '.join(execution.cmd)}")
        opened: list[int] = []
        try:
            host_config = self._host_config(execution)
            secured = security.decide(host_config)
            process = self._process(execution, host_config, secured)
            run = functools.partial(self._exec, execution, process, secured.seccomp)
            if execution.tty:
                process.console_size = specs.console_size(size or execution.size)
                session = await self._start_terminal(execution, run)
                if not detach:
                    return session
                await session.close()
                return None
            if detach:
                execution.pid, _ = await run({})
                return None
            return await self._start_pipes(execution, run, opened)
        except BaseException as error:
            for fd in opened:
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._finish(execution, self._code(error))
            if isinstance(error, ExecFailed):
                raise self._refusal(execution, error) from None
            raise

    @staticmethod
    async def _start_pipes(execution: Execution, run: _Run, opened: list[int]) -> ExecSession:
        theirs: dict[str, int] = {}
        readers: dict[str, int] = {}
        writer: int | None = None
        for name, wanted in (("stdout", execution.stdout), ("stderr", execution.stderr)):
            if wanted:
                readers[name], theirs[name] = os.pipe2(os.O_CLOEXEC)
                opened += [readers[name], theirs[name]]
        if execution.stdin:
            theirs["stdin"], writer = os.pipe2(os.O_CLOEXEC)
            opened += [theirs["stdin"], writer]
        execution.pid, _ = await run(theirs)
        for fd in theirs.values():
            os.close(fd)
        opened.clear()
        return ExecSession(
            execution,
            {name: pipes.Reader(fd) for name, fd in readers.items()},
            pipes.Writer(writer) if writer is not None else None,
        )

    @staticmethod
    async def _start_terminal(execution: Execution, run: _Run) -> ExecSession:
        execution.pid, master = await run({})
        assert master is not None
        if execution.exit_code is None:
            execution.terminal = master
            master = os.dup(master)
        return ExecSession(execution, {"stdout": pipes.Reader(master)}, pipes.Writer(os.dup(master)))

    async def _exec(
        self, execution: Execution, process: Process, seccomp: LinuxSeccomp | None, fds: dict[str, int]
    ) -> tuple[int, int | None]:
        return await self._room.launcher.exec(
            execution.container.id,
            execution.id,
            process,
            stdin=fds.get("stdin"),
            stdout=fds.get("stdout"),
            stderr=fds.get("stderr"),
            seccomp=seccomp,
        )

    @staticmethod
    def _host_config(execution: Execution) -> HostConfig:
        host_config = execution.container.host_config
        if execution.privileged:
            return msgspec.structs.replace(host_config, privileged=True)
        return host_config

    def _process(self, execution: Execution, host_config: HostConfig, secured: security.Security) -> Process:
        container = execution.container
        config = msgspec.structs.replace(
            container.config,
            env=environment.merge(container.config.env, execution.env),
            tty=execution.tty,
            working_dir=execution.working_dir or container.config.working_dir,
        )
        groups = host_config.group_add if not execution.user else ()
        user = users.resolve(execution.user or container.config.user, groups, rootview.layered(self._room, container))
        idranges.check(user, container.id_shift)
        return specs.process(
            config,
            execution.cmd,
            user,
            secured,
            hostname=container.hostname,
            rlimits=host_config.ulimits,
            oom_score_adj=host_config.oom_score_adj,
        )

    def ended(self, exec_id: str, end: Exit) -> None:
        """The launcher saw it end."""
        execution = self._all.get(exec_id)
        if execution is not None:
            self._finish(execution, end.code)

    def _finish(self, execution: Execution, code: int) -> None:
        if execution.exit_code is not None:
            return
        execution.exit_code, execution.pid = code, 0
        if execution.terminal is not None:
            os.close(execution.terminal)
            execution.terminal = None
        if not execution.ended.done():
            execution.ended.set_result(code)
        self._tell(execution, "exec_die", {"exitCode": str(code)})

    def resize(self, execution: Execution, rows: int, cols: int) -> None:
        """Raises Conflict when there is no terminal to resize."""
        if execution.terminal is None:
            raise Conflict(f"cannot resize exec {execution.id}: it has no terminal, or does not run")
        set_size(execution.terminal, rows, cols)

    def container_ended(self, container: Container) -> None:
        """With its first process all others were killed; those whose exit got lost are ended as killed."""
        for execution in list(self._all.values()):
            if execution.container is container and execution.running:
                asyncio.get_running_loop().call_later(1.0, self._finish, execution, 137)

    def _tell(self, execution: Execution, action: str, extra: dict[str, str] | None = None) -> None:
        self._room.tell(execution.container, action, {"execID": execution.id, **(extra or {})})

    def _forget_some(self) -> None:
        for one in [one for one in self._all.values() if self._is_over(one)][:-_MOST_FINISHED]:
            del self._all[one.id]

    def _is_over(self, execution: Execution) -> bool:
        if execution.started:
            return execution.exit_code is not None
        return execution.container.id not in self._room.registry

    @staticmethod
    def _must_run(container: Container) -> None:
        if container.state.status == "paused":
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if container.state.status != "running":
            raise Conflict(f"Container {container.id} is not running")

    @staticmethod
    def _code(error: BaseException) -> int:
        if isinstance(error, ExecFailed):
            return 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
        return 126

    @staticmethod
    def _refusal(execution: Execution, error: ExecFailed) -> Exception:
        command = execution.cmd[0]
        if error.stage == "working directory":
            reason = os.strerror(error.errno).lower()
            return InvalidInput(
                "OCI runtime exec failed: exec failed: unable to start container process: "
                f'chdir to cwd ("{execution.working_dir}") set in config.json failed: {reason}'
            )
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            reason = "no such file or directory" if "/" in command else "executable file not found in $PATH"
        elif error.errno in (errno.EACCES, errno.EPERM):
            reason = "permission denied"
        else:
            return SystemFailure(f"exec failed: {error}", error.errno)
        return InvalidInput(
            f'OCI runtime exec failed: exec failed: unable to start container process: exec: "{command}": {reason}'
        )


def set_size(terminal: int, rows: int, cols: int) -> None:
    """Raises InvalidInput for sizes that no terminal has."""
    if not (0 <= rows < 65536 and 0 <= cols < 65536):
        raise InvalidInput(f"invalid terminal size {rows}x{cols}")
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
