"""RUN: what a command's container is given, and what is taken away after it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.build import builtinargs
from engine.build.actions import RunCommand
from engine.build.agentpassage import passage
from engine.build.cachemounts import CacheMounts
from engine.build.filematch import clean
from engine.build.hostca import TARGET as CA_TARGET
from engine.build.hostca import VARIABLES as CA_VARIABLES
from engine.build.mounts import Mount
from engine.build.problems import DockerfileError, did_you_mean
from engine.build.request import HOST_NETWORK, INSECURE, BuildRequest
from engine.build.steps.binds import Behind, copy_out
from engine.build.steps.workspace import Workspace
from engine.containers import idranges
from engine.containers.ephemeral import Step, StepMount
from engine.errors import Forbidden
from engine.threads import to_the_end

_HOSTNAME = "buildkitsandbox"
# Where a runtime puts files and file systems of its own. An image without these names shall not get them.
_STUB_FOLDERS = ("proc", "sys", "dev")
_STUB_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


@dataclass(frozen=True)
class Prepared:
    """A step ready to run over `lower`."""

    step: Step
    lower: tuple[Path, ...]


class RunPreparation:
    """Gathers what the mounts of one RUN need. What `stack` holds is given back after the step."""

    def __init__(
        self,
        run: RunCommand,
        request: BuildRequest,
        space: Workspace,
        caches: CacheMounts,
        behind: Mapping[Mount, Behind],
        stack: AsyncExitStack,
    ) -> None:
        self._run = run
        self._request = request
        self._space = space
        self._caches = caches
        self._behind = behind
        self._stack = stack
        self._mounts: list[StepMount] = []
        self._variables: dict[str, str] = {}
        self._stubs = space.scratch_folder("stubs")

    async def prepare(self, lower: tuple[Path, ...], host_ca: Path | None) -> Prepared:
        """Everything in place. Raises DockerfileError for a mount that can't be made."""
        run = self._run
        request = self._request
        if run.privileged and INSECURE not in request.entitlements:
            raise Forbidden(f"--security=insecure is not allowed: the build must be given {INSECURE}")
        if run.network == "host" and request.network != "host" and HOST_NETWORK not in request.entitlements:
            raise Forbidden(f"--network=host is not allowed: the build must have that network, or {HOST_NETWORK}")
        for name in _STUB_FOLDERS:
            (self._stubs / name).mkdir(exist_ok=True)
        for name in _STUB_FILES:
            self._stub_file(name)
        for number, mount in enumerate(run.mounts):
            await self._add(mount, number)
        if run.script is not None:
            path = self._space.scratch_folder("pipes") / run.script.name
            path.write_bytes(run.script.content)
            path.chmod(0o755)
            self._mounts.append(StepMount(f"/dev/pipes/{run.script.name}", path, read_only=True))
        env = _environment(run, self._variables)
        if host_ca is not None:
            self._mounts.append(StepMount(CA_TARGET, host_ca, read_only=True))
            for name in CA_VARIABLES:
                env.setdefault(name, CA_TARGET)
        step = Step(
            args=run.argv,
            env=tuple(f"{name}={value}" for name, value in env.items()),
            working_dir=run.working_dir,
            user=run.user,
            hostname=request.build_args.get(builtinargs.HOSTNAME) or _HOSTNAME,
            network=request.network if run.network == "default" else run.network,
            mounts=tuple(self._mounts),
            extra_hosts=request.extra_hosts,
            id_shift=self._space.id_shift,
            shm_size=request.shm_size,
            limits=request.limits,
            security_opt=request.security_opt,
            privileged=run.privileged,
        )
        # Lowest of all: the image's own files come first, and nothing of this is in the new layer.
        return Prepared(step, (*lower, self._stubs))

    async def _add(self, mount: Mount, number: int) -> None:
        if mount.type == "tmpfs":
            self._stub_folder(mount.target)
            self._mounts.append(StepMount(mount.target, None, mount.read_only, mount.size or None))
        elif mount.type == "secret":
            self._secret(mount, number)
        elif mount.type == "ssh":
            await self._ssh(mount, number)
        elif mount.type == "cache":
            await self._cache(mount)
        else:
            await self._bind(mount, number)

    async def _bind(self, mount: Mount, number: int) -> None:
        behind = self._behind[mount]
        shown = await to_the_end(lambda: behind.show(mount.source))
        if shown.is_folder:
            self._stub_folder(mount.target)
            self._mounts.append(self._over(mount, shown.parts, self._space.scratch_folder(f"bind{number}")))
            return
        self._stub_file(mount.target)
        (file,) = shown.parts
        if not mount.read_only or self._run.privileged:
            # Writes are lost, as they shall be; and who has every right could make a mount writable. A device, whose
            # content is the host's, is made anew and never read.
            file = await to_the_end(
                lambda: copy_out(behind.tree, behind.pick(mount.source), self._space.scratch / f"bind{number}")
            )
        self._mounts.append(StepMount(mount.target, file, mount.read_only))

    def _over(self, mount: Mount, parts: tuple[Path, ...], scratch: Path) -> StepMount:
        """Folders, which nobody can write to; what is written to the mount is thrown away."""
        empty, nothing, upper, work = (scratch / name for name in ("empty", "nothing", "upper", "work"))
        for folder in (empty, nothing, upper, work):
            folder.mkdir()
        parts = parts or (nothing,)  # of the empty image
        if mount.read_only:
            # An overlay that can't be written to is one of two folders at least.
            return StepMount(mount.target, read_only=True, layers=(*parts, empty))
        top = parts[0].stat()
        shift = self._space.id_shift
        os.chown(upper, *(number + shift if number < idranges.SIZE else number for number in (top.st_uid, top.st_gid)))
        upper.chmod(top.st_mode & 0o7777)
        return StepMount(mount.target, layers=parts, upper=upper, work=work)

    async def _cache(self, mount: Mount) -> None:
        behind = self._behind[mount]

        def fill(folder: Path) -> None:
            if mount.origin:
                made = copy_out(
                    behind.tree, behind.pick(mount.source), self._space.scratch / f"seed{len(self._mounts)}"
                )
                if not made.is_dir():
                    raise DockerfileError(f"cache mount: {mount.source} is no folder to begin a cache with")
                for name in list(made.iterdir()):
                    name.rename(folder / name.name)
            folder.chmod(0o755 if mount.mode is None else mount.mode)
            os.chown(folder, mount.uid or 0, mount.gid or 0)

        name = mount.id or mount.target
        if namespace := self._request.build_args.get(builtinargs.CACHE_MOUNTS):
            name = f"{namespace}\0\0{name}"
        if mount.origin:
            # What begins otherwise is another cache, as in BuildKit.
            name += f"\0{behind.chain}\0{clean('/' + mount.source)}"
        elif clean("/" + mount.source) != "/":
            # A folder of its own: whoever writes to the cache could make a path in it lead anywhere.
            name += "\0" + clean("/" + mount.source)
        folder = await self._stack.enter_async_context(self._caches.use(name, mount.sharing or "shared", fill))
        self._stub_folder(mount.target)
        self._mounts.append(StepMount(mount.target, folder, mount.read_only))

    def _secret(self, mount: Mount, number: int) -> None:
        name = mount.id or mount.source or posixpath.basename(mount.target)
        value = self._request.secrets.get(name)
        if value is None:
            if mount.required:
                raise DockerfileError(f"secret {name}: not found{did_you_mean(name, self._request.secrets)}")
            return
        if mount.env is not None:
            self._variables[mount.env or name] = value.decode("utf-8", "surrogateescape")
            if not mount.target:
                return
        target = mount.target or f"/run/secrets/{posixpath.basename(name)}"
        path = self._space.scratch_folder(f"secret{number}") / "value"
        path.touch(mode=0o600)
        path.write_bytes(value)
        os.chown(path, mount.uid or 0, mount.gid or 0)
        path.chmod(0o400 if mount.mode is None else mount.mode)
        self._stub_file(target)
        self._mounts.append(StepMount(target, path, read_only=True))

    async def _ssh(self, mount: Mount, number: int) -> None:
        name = mount.id or "default"
        socket = self._request.ssh.get(name)
        if socket is None:
            if mount.required:
                raise DockerfileError(f"ssh agent {name}: not given to this build (--ssh {name})")
            return
        target = mount.target or f"/run/buildkit/ssh_agent.{number}"
        self._stub_file(target)
        door = self._space.scratch_folder(f"ssh{number}") / "agent"
        mode = 0o600 if mount.mode is None else mount.mode
        await self._stack.enter_async_context(passage(door, socket, (mount.uid or 0, mount.gid or 0), mode))
        self._mounts.append(StepMount(target, door, read_only=mount.read_only))
        self._variables["SSH_AUTH_SOCK"] = target

    def _stub_folder(self, target: str) -> None:
        (self._stubs / target.strip("/")).mkdir(parents=True, exist_ok=True)

    def _stub_file(self, target: str) -> None:
        path = self._stubs / target.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _environment(run: RunCommand, more: Mapping[str, str]) -> dict[str, str]:
    """The image's variables, then ARGs and proxies, which never hide the image's own."""
    env = dict(pair.partition("=")[::2] for pair in run.env)
    for name, value in (*run.args, *run.proxies, *more.items()):
        env.setdefault(name, value)
    return env
