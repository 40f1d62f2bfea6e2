"""Works off one build: runs the stages' actions, or takes their results from the cache.

Stages that do not need each other go on at the same time; what two builds want at once is made once.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime

import msgspec

from engine.build import builtinargs, cachekey, progress
from engine.build.actions import Action, ChangeConfig, CopyFiles, MakeFolder, RunCommand
from engine.build.addresses import AddressPolicy
from engine.build.cachemounts import CacheMounts
from engine.build.flights import Flights
from engine.build.graph import SCRATCH
from engine.build.hostca import host_bundle
from engine.build.mounts import Mount
from engine.build.ports import RunStep
from engine.build.prepare import Preparation, ReadyStage
from engine.build.problems import DockerfileError, StepError
from engine.build.progress import Progress
from engine.build.recall import Recall
from engine.build.remote import is_git, is_url, parse_git
from engine.build.request import BuildRequest
from engine.build.results import Standing
from engine.build.selection import digest_of, pick
from engine.build.stepcache import Result
from engine.build.steps.add import unpacked
from engine.build.steps.binds import Behind, LaidOut
from engine.build.steps.copy import Source, copy_files, make_folder
from engine.build.steps.download import download, file_name
from engine.build.steps.logins import Logins
from engine.build.steps.repository import checkout, is_commit
from engine.build.steps.run import RunPreparation
from engine.build.steps.workspace import Workspace
from engine.build.trees import EmptyTree, Tree
from engine.config import EngineConfig
from engine.containers.idranges import IdRanges
from engine.errors import EngineError, InvalidInput
from engine.images.config import ImageConfig
from engine.images.image import Image, Layer
from engine.images.leases import Lease
from engine.images.store import ImageStore
from engine.threads import to_the_end

_SECOND = len("1970-01-01T00:00:00")


class Solver:
    """One build's work. `tree` holds the build context."""

    def __init__(
        self,
        request: BuildRequest,
        config: EngineConfig,
        images: ImageStore,
        run_step: RunStep,
        recall: Recall,
        lease: Lease,
        caches: CacheMounts,
        policy: AddressPolicy,
        flights: Flights,
        ranges: IdRanges | None,
        tree: Tree,
        preparation: Preparation,
        stages: Mapping[int, ReadyStage],
        epoch: int | None,
        tell: Progress,
    ) -> None:
        self._request = request
        self._images = images
        self._run_step = run_step
        self._recall = recall
        self._lease = lease
        self._caches = caches
        self._policy = policy
        self._flights = flights
        self._ranges = ranges
        self._tree = tree
        self._preparation = preparation
        self._stages = stages
        self._epoch = epoch
        self._tell = tell
        self._spaces = config.data_root / "build" / "steps"
        self._laid_out = LaidOut(tree, self._spaces / secrets.token_hex(8))
        self._host_ca = host_bundle() if config.trust_host_ca else None
        self._solved: dict[int, asyncio.Task[Standing]] = {}
        self._numbers: dict[int, int] = {}
        self._total = 0
        for position, stage in stages.items():
            self._numbers[position] = self._total + 1
            self._total += 1 + len(stage.work.actions)

    async def solve(self, target: int) -> tuple[Standing, ImageConfig]:
        """The target's layers and configuration. Raises StepError; the other stages are stopped then."""
        try:
            async with asyncio.TaskGroup() as group:
                for position in self._stages:
                    self._solved[position] = group.create_task(self._stage(position))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            await to_the_end(self._laid_out.remove)
        standing = self._solved[target].result()
        config = self._stages[target].work.config
        newest = max((entry.created or "" for entry in standing.history), default="")
        if self._epoch is not None and newest[:_SECOND] > self._now()[:_SECOND]:
            newest = self._now()  # what a younger base says of itself stays in its history
        return standing, msgspec.structs.replace(
            config,
            created=newest or config.created,
            rootfs=msgspec.structs.replace(config.rootfs, diff_ids=standing.diff_ids),
            history=standing.history,
        )

    async def _stage(self, position: int) -> Standing:
        stage = self._stages[position]
        number = self._numbers[position]
        opening = stage.planned.stage.opening
        title = stage.planned.title
        self._tell(progress.StepStarted(number, self._total, title, opening.code, opening.line))
        started = time.monotonic()
        if isinstance(stage.planned.base, int):
            standing = await self._solved[stage.planned.base]
        elif stage.image is not None:
            image = stage.image
            standing = await to_the_end(lambda: self._from_image(image))
        else:
            standing = Standing()
        self._tell(progress.StepFinished(number, _short(standing), time.monotonic() - started))
        for action in stage.work.actions:
            number += 1
            self._tell(progress.StepStarted(number, self._total, title, action.text, action.line))
            started = time.monotonic()
            standing = await self._act(action, standing, number)
            self._tell(progress.StepFinished(number, _short(standing), time.monotonic() - started))
        return standing

    def _from_image(self, image: Image) -> Standing:
        chains = image.config.chain_ids
        return Standing(
            chains[-1] if chains else "",
            self._images.lowerdirs(image.id),
            self._images.layers_of(image.id),
            image.config.rootfs.diff_ids,
            image.config.history,
            image.id,
        )

    async def _act(self, action: Action, standing: Standing, number: int) -> Standing:
        try:
            if isinstance(action, RunCommand):
                return await self._run(action, standing, number)
            if isinstance(action, CopyFiles):
                return await self._copy(action, standing, number)
            if isinstance(action, MakeFolder):
                return await self._make_folder(action, standing, number)
            assert isinstance(action, ChangeConfig)
            return await self._change(action, standing, number)
        except StepError:
            raise
        except DockerfileError as error:
            raise StepError(error.problem, action.line, action.keyword) from None
        except EngineError as error:
            raise StepError(str(error), action.line, action.keyword) from error
        except OSError as error:
            raise StepError(_told(error), action.line, action.keyword) from error

    # -- the four kinds of action

    async def _change(self, change: ChangeConfig, standing: Standing, number: int) -> Standing:
        key = cachekey.change_key(standing.before, change)
        known = self._recall.look_up(key)
        if known is not None:
            self._tell(progress.StepCached(number))
        created = self._now() if known is None or self._epoch is not None else known.created
        if known is None:
            self._recall.keep((key,), Result("", "", created))
        return standing.with_change(change.created_by, created, f"{key} {created}")

    async def _make_folder(self, make: MakeFolder, standing: Standing, number: int) -> Standing:
        key = cachekey.folder_key(standing.chain, make)

        async def work(space: Workspace) -> bool:
            return await to_the_end(lambda: make_folder(standing.lower, space, make))

        return await self._made(make, standing, number, key, work)

    async def _run(self, run: RunCommand, standing: Standing, number: int) -> Standing:
        async with AsyncExitStack() as stack:
            origins = dict(zip(run.mounts, run.origins, strict=True))
            standings = {
                mount: await self._origin(origin)
                for mount, origin in origins.items()
                if origin is not None and mount.type in ("bind", "cache")
            }
            # What is behind each mount, without reading it: as good as its content, where it is another's layers.
            pins = [
                cachekey.pinned(standings[mount].chain, [mount.source]) if mount in standings else ""
                for mount in run.mounts
                if mount.type == "bind"
            ]
            fast: tuple[str, ...] = ()
            hostname = self._request.build_args.get(builtinargs.HOSTNAME)
            named = [f"hostname {hostname}"] if hostname else []
            if pins and all(pins):
                fast = (cachekey.run_key(standing.chain, run, pins + named),)
                if (known := await self._known(fast[0], standing, run)) is not None:
                    self._tell(progress.StepCached(number))
                    return known
            behind = {mount: self._behind(mount, standings.get(mount), stack) for mount in run.mounts}
            inputs = [await self._mount_input(mount, behind[mount]) for mount in run.mounts] + named

            async def work(space: Workspace) -> bool:
                async with AsyncExitStack() as held:
                    self._lend_ids(run, space)
                    preparation = RunPreparation(run, self._request, space, self._caches, behind, held)
                    prepared = await preparation.prepare(standing.lower, self._host_ca)
                    exit_ = await self._run_step(
                        lower=prepared.lower,
                        upper=space.upper,
                        work=space.work,
                        step=prepared.step,
                        output=lambda stream, data: self._tell(progress.StepOutput(number, stream, data)),
                    )
                if exit_.code:
                    killed = ": it ran out of memory" if exit_.oom_killed else ""
                    raise StepError(
                        f"The command '{' '.join(run.argv)}' returned a non-zero code: {exit_.code}{killed}",
                        run.line,
                        run.keyword,
                        exit_.code,
                    )
                return not space.untouched

            key = cachekey.run_key(standing.chain, run, inputs)
            return await self._made(run, standing, number, key, work, also=fast)

    async def _copy(self, copy: CopyFiles, standing: Standing, number: int) -> Standing:
        async with AsyncExitStack() as stack:
            fast: tuple[str, ...] = ()
            what = "build context"
            if pinned := _pinned_remote(copy):
                fast = (cachekey.copy_key(standing.chain, copy, pinned),)
            if copy.origin is not None:
                origin = await self._origin(copy.origin)
                what = f"stage or image {copy.origin}"
                if origin.chain:
                    content = cachekey.pinned(origin.chain, copy.sources)
                    fast = (cachekey.copy_key(standing.chain, copy, content),)
                tree = stack.enter_context(origin.tree())
            else:
                tree = self._tree
            if fast and (known := await self._known(fast[0], standing, copy)) is not None:
                self._tell(progress.StepCached(number))
                return known
            local = tuple(source for source in copy.sources if not is_url(source) and not is_git(source))
            picked = await to_the_end(lambda: pick(tree, local, parents=copy.parents, what=what))
            sources = [Source(tree, one) for one in picked]
            content = await to_the_end(lambda: digest_of(tree, picked, copy.excludes))
            if len(local) < len(copy.sources):
                remote = await self._fetch(copy, stack)
                sources = remote + sources
                content += await to_the_end(
                    lambda: "".join(digest_of(one.tree, [one.picked], copy.excludes) for one in remote)
                )

            async def work(space: Workspace) -> bool:
                def write() -> bool:
                    with ExitStack() as opened:
                        ready = [_ready(copy, source, tree, space, opened) for source in sources]
                        return copy_files(standing.lower, space, copy, ready, self._epoch)

                return await to_the_end(write)

            key = cachekey.copy_key(standing.chain, copy, content)
            return await self._made(copy, standing, number, key, work, also=fast)

    async def _fetch(self, copy: CopyFiles, stack: AsyncExitStack) -> list[Source]:
        """What ADD brings from elsewhere, in folders that go with `stack`."""
        space = await to_the_end(lambda: Workspace(self._spaces, ()))
        stack.callback(space.remove)
        found: list[Source] = []
        logins = Logins(self._request.secrets)
        for number, address in enumerate(copy.sources):
            folder = space.scratch_folder(str(number))
            git = parse_git(address)
            if git is not None:
                source = await checkout(
                    git,
                    folder,
                    keep_git_dir=bool(git.keep_git_dir) or copy.keep_git_dir,
                    checksum=copy.checksum or git.checksum,
                    policy=self._policy,
                    agent=self._request.ssh.get("default"),
                    logins=logins,
                )
            elif is_url(address):
                name = file_name(address, needed=copy.into)
                source = await download(address, folder, name, copy.checksum, self._policy, logins)
            else:
                continue
            stack.callback(source.tree.close)
            found.append(source)
        return found

    # -- results

    async def _made(
        self,
        action: Action,
        standing: Standing,
        number: int,
        key: str,
        work: Callable[[Workspace], Awaitable[bool]],
        also: tuple[str, ...] = (),
    ) -> Standing:
        """The result under `key` where there is one, else what `work` leaves in a fresh layer."""
        async with self._flights.alone(key):
            known = await self._known(key, standing, action)
            if known is not None:
                if self._recall.is_own(key):
                    self._remember(also, known)
                self._tell(progress.StepCached(number))
                return known
            space = await to_the_end(lambda: Workspace(self._spaces, standing.lower))
            try:
                changed = await work(space)
                created = self._now()
                if changed:
                    layer = await to_the_end(lambda: self._commit(standing, space))
                    result = Result(layer.chain_id, layer.diff_id, created)
                    after = self._with_layer(standing, layer, action, created)
                else:
                    result = Result("", "", created)
                    after = standing.with_change(action.created_by, created, f"{key} {created}")
            finally:
                await to_the_end(space.remove)
                if self._ranges is not None:
                    self._ranges.give_back(space.id_shift)
            self._recall.keep((key, *also), result)
            return after

    def _lend_ids(self, run: RunCommand, space: Workspace) -> None:
        """The network's and the devices' files may only be shown to whoever owns their namespaces: then no ids."""
        network = self._request.network if run.network == "default" else run.network
        if self._ranges is not None and network != "host" and not run.privileged:
            space.id_shift = self._ranges.take()

    def _commit(self, standing: Standing, space: Workspace) -> Layer:
        layer = self._images.add_layer_from_dir(
            standing.chain or None, space.upper, id_shift=space.id_shift, clamp=self._epoch
        )
        self._lease.add(layer.chain_id)
        return layer

    def _with_layer(self, standing: Standing, layer: Layer, action: Action, created: str) -> Standing:
        lower = self._images.layers.lowerdirs(layer.chain_id)
        return standing.with_layer(layer, lower, action.created_by, created)

    async def _known(self, key: str, standing: Standing, action: Action) -> Standing | None:
        found = self._recall.look_up(key)
        if found is None:
            return None
        created = self._now() if self._epoch is not None else found.created
        if not found.chain_id:
            return standing.with_change(action.created_by, created, f"{key} {created}")
        # Copied with --link it may have been made over other layers: its own is put on top of these.
        layer = await self._recall.layer(found, standing.chain)
        return self._with_layer(standing, layer, action, created) if layer is not None else None

    def _remember(self, keys: tuple[str, ...], standing: Standing) -> None:
        created = standing.history[-1].created or self._now()
        if standing.history[-1].empty_layer:
            self._recall.keep(keys, Result("", "", created))
        else:
            self._recall.keep(keys, Result(standing.chain, standing.diff_ids[-1], created))

    def _now(self) -> str:
        moment = time.time() if self._epoch is None else self._epoch
        text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
        return text.replace("+00:00", "Z")

    # -- where files come from

    async def _origin(self, origin: int | str) -> Standing:
        if isinstance(origin, int):
            return await self._solved[origin]
        if origin == SCRATCH:
            return Standing()
        image = await self._preparation.image(origin)
        return await to_the_end(lambda: self._from_image(image))

    def _behind(self, mount: Mount, standing: Standing | None, stack: AsyncExitStack) -> Behind:
        if standing is not None:
            return Behind(stack.enter_context(standing.tree()), self._laid_out, standing.chain, standing.lower)
        return Behind(self._tree if mount.type == "bind" else EmptyTree(), self._laid_out)

    async def _mount_input(self, mount: Mount, behind: Behind) -> str:
        if mount.type != "bind":
            return ""
        return await to_the_end(lambda: digest_of(behind.tree, [behind.pick(mount.source)]))


def _ready(copy: CopyFiles, source: Source, local_tree: Tree, space: Workspace, opened: ExitStack) -> Source:
    """ADD unpacks local archives, unless it was told not to, and downloaded ones where it was told to."""
    local = copy.is_add and source.tree is local_tree
    if not (local if copy.unpack is None else copy.unpack):
        return source
    space.scratch.mkdir(exist_ok=True)
    try:
        found = unpacked(source, space.scratch)
    except InvalidInput as error:
        raise InvalidInput(f"{error}: {source.picked.path}") from None
    if found is None:
        return source
    opened.callback(found[1].close)
    return found[0]


def _pinned_remote(copy: CopyFiles) -> str:
    """What ADD's one source must be, where that is known before it is fetched."""
    if len(copy.sources) != 1 or copy.inline:
        return ""
    (address,) = copy.sources
    git = parse_git(address)
    if git is not None:
        pins = (git.ref, copy.checksum, git.checksum)
        pin = next(filter(is_commit, pins), "")
        kept = bool(git.keep_git_dir) or copy.keep_git_dir
        return f"git:{pin}:{git.subdirectory}:{kept}:{git.submodules}" if pin else ""
    if is_url(address) and copy.checksum:
        return f"url:{copy.checksum}:{file_name(address, needed=copy.into)}"
    return ""


def _told(error: OSError) -> str:
    """One line of what the system refused. Where the engine keeps its files is nobody's business."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}: make room where the engine keeps its data, or prune images and build cache"
    return error.strerror or str(error)


def _short(standing: Standing) -> str:
    text = standing.before.partition(" ")[0]
    return text.removeprefix("sha256:")[:12]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that came first is the one to tell; the others follow from it."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
