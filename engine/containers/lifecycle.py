"""The engine's containers: the one face that the API and the builder use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

from engine.config import EngineConfig
from engine.containers.events import EventBus
from engine.containers.hostconfig import HostConfig, Limits, RestartPolicy
from engine.containers.model import Container, ContainerConfig, EndpointSettings, NetworkingConfig
from engine.containers.session import Session, Stream

if TYPE_CHECKING:
    from engine.images.store import Image, ImageStore
    from engine.network import Networks
    from engine.runtime.launcher import Exit, Launcher

WaitCondition = Literal["not-running", "next-exit", "removed"]
Filters = Mapping[str, Sequence[str]]
"""Docker's filters: {"status": ["running"], "label": ["a=b"]}."""


class Containers:
    """All containers of one engine. Every `ref` is a full id, a name or an unambiguous prefix of an id.

    Raises NotFound ("No such container: x"), Conflict, InvalidInput, SystemFailure.
    """

    def __init__(
        self,
        config: EngineConfig,
        launcher: Launcher,
        images: ImageStore,
        networks: Networks,
        events: EventBus,
    ) -> None:
        raise NotImplementedError

    async def restore(self) -> None:
        """At the engine's start: learns what happened meanwhile and starts what its policy wants running."""

    async def close(self) -> None:
        """Stops watching. Containers run on."""

    # Being

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host_config: HostConfig | None = None,
        networking: NetworkingConfig | None = None,
    ) -> Container:
        """Makes a container of `config.image`; values not given are the image's. Nothing runs yet."""
        raise NotImplementedError

    def get(self, ref: str) -> Container: ...
    def list(
        self, *, all: bool = False, filters: Filters | None = None, limit: int = 0
    ) -> list[Container]: ...
    def inspect(self, ref: str) -> dict[str, Any]:
        """Docker's container JSON."""

    async def inspect_size(self, ref: str) -> tuple[int, int]:
        """(SizeRw, SizeRootFs) in bytes."""

    def summary(self, container: Container) -> dict[str, Any]:
        """One element of Docker's container list."""

    async def rename(self, ref: str, name: str) -> None: ...
    async def update(
        self, ref: str, limits: Limits, restart_policy: RestartPolicy | None = None
    ) -> list[str]:
        """Live change of limits; what is unset stays. Returns warnings."""

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None: ...
    async def prune(self, filters: Filters | None = None) -> tuple[list[str], int]:
        """(ids removed, bytes freed)."""

    # Life

    async def start(self, ref: str) -> None: ...
    async def stop(self, ref: str, timeout: int | None = None, signal: str | None = None) -> None: ...
    async def kill(self, ref: str, signal: str = "KILL") -> None: ...
    async def restart(self, ref: str, timeout: int | None = None, signal: str | None = None) -> None: ...
    async def pause(self, ref: str) -> None: ...
    async def unpause(self, ref: str) -> None: ...
    async def wait(self, ref: str, condition: WaitCondition = "not-running") -> Exit:
        """Registers at the call's first step: an exit that comes after is never missed."""

    # Talking

    async def attach(
        self, ref: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, logs: bool = False
    ) -> Session:
        """Joins the streams of a created or running container. With `logs` the log so far comes first."""

    async def resize(self, ref: str, rows: int, cols: int) -> None: ...
    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[tuple[Stream, int, bytes]]:
        """(stream, time in unix ns, bytes as written, newline included). Times of `since`/`until` in unix ns."""

    # Executions

    async def exec_create(
        self,
        ref: str,
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
    ) -> str:
        """The new execution's id."""

    async def exec_start(
        self, exec_id: str, *, detach: bool = False, tty: bool = False, size: tuple[int, int] | None = None
    ) -> Session | None:
        """Starts it; None when detached. `size` is (rows, columns)."""

    def exec_inspect(self, exec_id: str) -> dict[str, Any]: ...
    async def exec_resize(self, exec_id: str, rows: int, cols: int) -> None: ...

    # Looking in

    async def top(self, ref: str, ps_args: str = "-ef") -> dict[str, Any]:
        """{"Titles": [...], "Processes": [[...]]}."""

    async def stats(self, ref: str, *, one_shot: bool = False) -> dict[str, Any]:
        """One sample as Docker's JSON; unless `one_shot` with the sample before it, a second earlier."""

    def stats_stream(self, ref: str) -> AsyncIterator[dict[str, Any]]:
        """A sample a second, until the container is removed."""

    async def changes(self, ref: str) -> list[dict[str, Any]]:
        """[{"Path": "/x", "Kind": 0 changed | 1 added | 2 deleted}]."""

    # Files

    async def archive_stat(self, ref: str, path: str) -> dict[str, Any]:
        """Docker's X-Docker-Container-Path-Stat, as a dictionary."""

    async def archive_get(self, ref: str, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """(stat, tar stream) of a file or folder."""

    async def archive_put(
        self,
        ref: str,
        path: str,
        tar: IO[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_ids: bool = False,
    ) -> None:
        """Unpacks a tar (gzip and zstd as well) into the folder `path`. `tar.read` is called in a thread."""

    def export(self, ref: str) -> AsyncIterator[bytes]:
        """The whole file system as a tar."""

    async def commit(
        self,
        ref: str,
        *,
        reference: str | None = None,
        changes: Sequence[str] = (),
        author: str = "",
        comment: str = "",
        pause: bool = True,
        config: ContainerConfig | None = None,
    ) -> Image:
        """A new image of the container's files. `changes` are Dockerfile lines; `reference` is name:tag."""

    # Networks

    async def network_connect(
        self, network: str, ref: str, settings: EndpointSettings | None = None
    ) -> None: ...
    async def network_disconnect(self, network: str, ref: str, *, force: bool = False) -> None: ...
