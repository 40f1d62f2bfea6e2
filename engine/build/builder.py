"""The door of this room: a request in, an image out."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from pathlib import Path

import msgspec

from engine.build import basechecks, builtinargs, checks, progress, sharedcache
from engine.build.addresses import AddressPolicy
from engine.build.cachemounts import CacheMounts
from engine.build.context import Context, FolderContext, read_dockerfile_bytes, read_ignore_rules
from engine.build.evaluate import printable
from engine.build.flights import Flights
from engine.build.graph import plan_stages
from engine.build.instructions import Dockerfile
from engine.build.interpret import interpret
from engine.build.parser import parse
from engine.build.platforms import PROXY_ARGS, automatic_args
from engine.build.ports import Caches, Pull, RunStep
from engine.build.prepare import Preparation, ReadyStage
from engine.build.problems import DockerfileError
from engine.build.progress import Progress
from engine.build.recall import Recall
from engine.build.remotecontext import RemoteContext, fetched
from engine.build.request import BuildRequest
from engine.build.scope import global_scope
from engine.build.sharedcache import SharedCache
from engine.build.solver import Solver
from engine.build.stepcache import StepCache
from engine.build.trees import EmptyTree, Tree
from engine.config import EngineConfig
from engine.containers.idranges import IdRanges
from engine.errors import EngineError, InvalidInput, NotFound
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.leases import Lease
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.threads import to_the_end

_KEEP_SECONDS = 7 * 86_400.0  # that a layer of the cache outlives its last use


class Builder:
    """Builds images for one engine. Lives as long as the daemon; its cache outlives it."""

    def __init__(
        self,
        config: EngineConfig,
        images: ImageStore,
        run_step: RunStep,
        policy: AddressPolicy | None = None,
        ranges: IdRanges | None = None,
    ) -> None:
        """`policy` says where ADD may download from; by default from public addresses and the
        networks of `config`.

        `ranges` lends ids to the steps' user namespaces; without it steps have none of their own.
        """
        self._policy = policy or AddressPolicy(config.build_networks)
        self._config = config
        self._images = images
        self._run_step = run_step
        # What steps were at when the engine was killed. This engine is the only one here, and has begun nothing yet.
        shutil.rmtree(config.data_root / "build" / "steps", ignore_errors=True)
        self.cache = StepCache(config.data_root / "build" / "cache.db")
        self.cache_mounts = CacheMounts(config.data_root / "build" / "cachemounts")
        self._ranges = ranges
        self._flights = Flights()
        self._lease = images.lease(*self.cache.chains(), seconds=_KEEP_SECONDS)
        self._building = 0
        self._outgoing: list[Lease] = []

    def close(self) -> None:
        self._release_outgoing()
        self._lease.release()
        self.cache.close()

    def remote_context(
        self,
        address: str,
        agent: Path | None = None,
        secrets: Mapping[str, bytes] | None = None,
        *,
        keep_git_dir: bool = False,
    ) -> AbstractAsyncContextManager[RemoteContext]:
        """What a build from an address is made of, fetched: a git repository, an archive or a Dockerfile."""
        folder = self._config.data_root / "build" / "steps"
        return fetched(address, folder, self._policy, agent, secrets or {}, keep_git_dir=keep_git_dir)

    async def prune(self, unused_for: float = _KEEP_SECONDS) -> int:
        """Forgets results and cache mounts that were not used for so many seconds. Returns the bytes freed.

        What builds that run now stand on goes only after them.
        """
        mounts = await to_the_end(partial(self.cache_mounts.prune, unused_for))
        before = self.cache.chains()
        await to_the_end(partial(self.cache.prune, time.time() - unused_for))
        kept = self.cache.chains()
        self._outgoing.append(self._lease)
        self._lease = self._images.lease(*kept, seconds=_KEEP_SECONDS)
        if self._building:
            return mounts
        self._release_outgoing()
        return mounts + await to_the_end(partial(self._images.drop_loose, sorted(before - kept)))

    def _release_outgoing(self) -> None:
        while self._outgoing:
            self._outgoing.pop().release()

    async def build(self, request: BuildRequest, pull: Pull, tell: Progress, caches: Caches | None = None) -> Image:
        """Builds and tags. Cancelling stops every step at once and leaves nothing but finished layers.

        `pull` is asked for base images that are not here, `caches` for what other engines have built. Raises
        DockerfileError before anything runs, StepError when a step fails, and what `pull` raises.
        """
        self._building += 1
        try:
            return await self._build(request, pull, tell, caches)
        finally:
            self._building -= 1
            if not self._building:
                self._release_outgoing()

    async def _build(self, request: BuildRequest, pull: Pull, tell: Progress, caches: Caches | None) -> Image:
        tags = [Reference.parse(tag) for tag in request.tags]
        with ExitStack() as opened:
            context = _context(request)
            whole: Tree = EmptyTree() if context is None else context.tree()
            opened.callback(whole.close)
            source = request.dockerfile_content
            if source is None:
                source = await to_the_end(lambda: read_dockerfile_bytes(whole, request.dockerfile))
            syntax = parse(source)
            dockerfile = interpret(syntax)
            settings = checks.settings_of(syntax, request.build_args)
            rules = await to_the_end(lambda: read_ignore_rules(whole, request.dockerfile))
            tree: Tree = EmptyTree() if context is None else await to_the_end(lambda: context.tree(rules))
            opened.callback(tree.close)

            host = Platform.host()
            target = Platform.parse(request.platform) if request.platform else host
            variables = global_scope(
                automatic_args(host, target, request.target),
                dockerfile.global_args,
                request.build_args,
                dockerfile.escape,
            )
            graph = plan_stages(dockerfile, request.target, variables)
            preparation = Preparation(
                dockerfile,
                graph,
                variables,
                request.build_args,
                target,
                target if request.platform else None,
                self._images,
                pull,
                request.pull,
                tell,
            )
            stages = await preparation.run()
            findings = [*checks.check_file(syntax, dockerfile), *checks.check_openings(dockerfile, variables)]
            defaults = global_scope(
                automatic_args(host, target, request.target), dockerfile.global_args, {}, dockerfile.escape
            )
            findings += basechecks.check_defaults(dockerfile, defaults)
            findings += _findings(stages, target)
            for ready in stages.values():
                findings += basechecks.check_copies(ready.work.actions, rules)
            _report(checks.chosen(findings, syntax, settings), settings, tell)
            for name in _unconsumed(request, dockerfile, stages.values()):
                tell(progress.Notice(f"build-arg {name} was not consumed: no ARG declares it"))
            shared = await self._import(request, caches, tell)
            recall = Recall(self.cache, self._images, self._lease, shared, fresh=request.no_cache)
            solver = Solver(
                request,
                self._config,
                self._images,
                self._run_step,
                recall,
                self._lease,
                self.cache_mounts,
                self._policy,
                self._flights,
                self._ranges,
                tree,
                preparation,
                stages,
                _epoch(request, variables),
                tell,
            )
            standing, config = await solver.solve(graph.target)
            config = sharedcache.strip(config)
            if builtinargs.is_true(request.build_args, sharedcache.ASKED_BY):
                config = sharedcache.embed(config, recall.results)
        if request.labels:
            labels = {printable(name): printable(value) for name, value in request.labels.items()}
            inner = msgspec.structs.replace(config.config, labels={**config.config.labels, **labels})
            config = msgspec.structs.replace(config, config=inner)
        image = await to_the_end(lambda: self._images.create_image(config, standing.layers, tags[0] if tags else None))
        for tag in tags[1:]:
            await to_the_end(partial(self._images.tag, image.id, tag))
        if tags[1:]:
            image = await to_the_end(lambda: self._images.get(image.id))
        await self._export(request, caches, recall, tell)
        tell(progress.Built(image.id, request.tags))
        return image

    async def _import(self, request: BuildRequest, caches: Caches | None, tell: Progress) -> list[SharedCache]:
        """What --cache-from names. One that can't be had is no reason to fail."""
        found: list[SharedCache] = []
        for name in () if request.no_cache else request.cache_from:
            try:
                try:
                    image = await to_the_end(partial(self._images.get, name))
                    found.append(SharedCache(sharedcache.extract(image.config)))
                except NotFound:
                    if caches is None:
                        raise
                    found.append(await caches.fetch(name))
            except EngineError as error:
                tell(progress.Notice(f"--cache-from {name}: {error}"))
        return found

    async def _export(self, request: BuildRequest, caches: Caches | None, recall: Recall, tell: Progress) -> None:
        """To where --cache-to says. The image is there already: that the cache is not is no reason to fail."""
        for name in request.cache_to if caches is not None else ():
            assert caches is not None
            try:
                await caches.publish(name, recall.results)
            except EngineError as error:
                tell(progress.Notice(f"--cache-to {name}: {error}"))


def _findings(stages: Mapping[int, ReadyStage], target: Platform) -> Iterator[checks.Finding]:
    for ready in stages.values():
        if ready.image is not None:
            yield from basechecks.check_platform(ready.planned, ready.image.config.platform, target)
        base = ready.planned.base
        below = stages[base].work.config if isinstance(base, int) else ready.image.config if ready.image else None
        has_shell = below is not None and bool(below.config.shell)
        yield from checks.check_stage(ready.planned.stage, has_shell=has_shell)
        yield from ready.work.findings


def _report(findings: Iterable[checks.Finding], settings: checks.Settings, tell: Progress) -> None:
    """Raises DockerfileError where the Dockerfile wants its findings to be errors."""
    for finding in findings:
        tell(progress.Notice(f"{finding.rule}: {finding.message}", finding.line))
    rules = sorted({finding.rule for finding in findings})
    if settings.error and rules:
        raise DockerfileError(f"lint violation found for rules: {', '.join(rules)}")


def _context(request: BuildRequest) -> Context | None:
    if isinstance(request.context, Path):
        return FolderContext(request.context)
    return request.context


def _epoch(request: BuildRequest, variables: Mapping[str, str]) -> int | None:
    """The build argument's, or what an ARG before the first FROM says."""
    text = request.build_args.get(builtinargs.EPOCH, variables.get(builtinargs.EPOCH, ""))
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise InvalidInput(f"{builtinargs.EPOCH}={text}: it must be a number of seconds since 1970")
    return int(text)


def _unconsumed(request: BuildRequest, dockerfile: Dockerfile, stages: Iterable[ReadyStage]) -> list[str]:
    """The --build-args that nothing in the built stages has asked for."""
    asked = {name.name for arg in dockerfile.global_args for name in arg.declared}
    asked |= {name for stage in stages for name in stage.work.args}
    return [name for name in request.build_args if name not in asked | PROXY_ARGS | builtinargs.NAMES]


async def build(
    request: BuildRequest,
    *,
    config: EngineConfig,
    images: ImageStore,
    run_step: RunStep,
    pull: Pull,
    progress: Progress,
) -> Image:
    """One build with a builder of its own: for tools and tests. The daemon keeps a `Builder`."""
    builder = Builder(config, images, run_step)
    try:
        return await builder.build(request, pull, progress)
    finally:
        builder.close()
