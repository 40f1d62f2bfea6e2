"""Before anything runs: base images are brought, stages evaluated, and the needed ones known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.build import progress
from engine.build.evaluate import Base, Evaluated, Surroundings, empty_config, evaluate
from engine.build.graph import SCRATCH, PlannedStage, StageGraph, origins_of
from engine.build.instructions import Dockerfile, Instruction
from engine.build.interpret import instruction_of
from engine.build.parser import parse
from engine.build.ports import Pull
from engine.build.problems import DockerfileError, did_you_mean
from engine.build.progress import Progress
from engine.errors import EngineError, NotFound
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore


@dataclass(frozen=True)
class ReadyStage:
    """A stage that will run, with everything it needs known."""

    planned: PlannedStage
    image: Image | None  # the base, where it is an image
    work: Evaluated


class Preparation:
    """Brings images once each and evaluates stages once each, all at the same time where they can be."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        graph: StageGraph,
        variables: Mapping[str, str],
        build_args: Mapping[str, str],
        target: Platform,
        asked: Platform | None,
        images: ImageStore,
        pull: Pull,
        always_pull: bool,
        tell: Progress,
    ) -> None:
        """Images are brought for `target`. What is here already will do, unless a platform was `asked` for."""
        self._dockerfile = dockerfile
        self._graph = graph
        self._variables = variables
        self._build_args = build_args
        self._target = target
        self._asked = asked
        self._images = images
        self._pull = pull
        self._always_pull = always_pull
        self._tell = tell
        self._stages: dict[int, asyncio.Task[ReadyStage]] = {}
        self._read_from: list[asyncio.Task[Image]] = []
        self._brought: dict[tuple[str, str], asyncio.Task[Image]] = {}

    async def run(self) -> dict[int, ReadyStage]:
        """The stages that the target needs, by position. Raises DockerfileError and what a pull raises."""
        try:
            await self._stage(self._graph.target)
            ready = {position: await task for position, task in sorted(self._stages.items())}
        except BaseException:
            tasks = [*self._stages.values(), *self._read_from, *self._brought.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        return ready

    async def image(self, name: str) -> Image:
        """An image that --from names, brought already by `run`."""
        return await self._image(name, self._asked)

    def _stage(self, position: int) -> asyncio.Task[ReadyStage]:
        if position not in self._stages:
            self._stages[position] = asyncio.create_task(self._evaluate(self._graph.stages[position]))
        return self._stages[position]

    async def _evaluate(self, planned: PlannedStage) -> ReadyStage:
        line = planned.stage.opening.line
        # What the stage copies from can come at the same time as its base.
        needs = self._needs(planned, planned.stage.steps)
        image: Image | None = None
        if isinstance(planned.base, int):
            parent = await self._stage(planned.base)
            base = Base(parent.work.config, parent.work.args, parent.work.workdir_given)
        elif planned.base is None:
            platform = planned.platform or self._target
            base = Base(empty_config(platform.architecture, platform.os, platform.variant))
        else:
            try:
                image = await self._image(planned.base, planned.platform or self._asked)
            except EngineError as error:
                raise type(error)(f"Dockerfile:{line}: FROM {planned.base}: {error}") from None
            base = Base(image.config)
        steps = [*self._triggers(base.config.config.on_build, line), *planned.stage.steps]
        work = evaluate(
            steps,
            base,
            Surroundings(
                self._variables,
                self._build_args,
                self._dockerfile.escape,
                lambda name: self._graph.origin(planned.position, name),
            ),
        )
        needs += self._needs(planned, steps)
        await asyncio.gather(*needs)
        return ReadyStage(planned, image, work)

    def _needs(
        self, planned: PlannedStage, steps: Sequence[Instruction]
    ) -> list[asyncio.Task[ReadyStage] | asyncio.Task[Image]]:
        found: list[asyncio.Task[ReadyStage] | asyncio.Task[Image]] = []
        for step in steps:
            for name in origins_of(step):
                try:
                    origin = self._graph.origin(planned.position, name)
                except DockerfileError as error:
                    raise error.at(step.line, step.keyword) from None
                if isinstance(origin, int):
                    found.append(self._stage(origin))
                elif origin != SCRATCH:
                    self._read_from.append(asyncio.create_task(self._elsewhere(origin, planned, step)))
                    found.append(self._read_from[-1])
        return found

    async def _elsewhere(self, origin: str, planned: PlannedStage, step: Instruction) -> Image:
        """An image that a step reads from. It may have been meant as a stage."""
        try:
            return await self._image(origin, self._asked)
        except EngineError as error:
            names = [stage.stage.name for stage in self._graph.stages[: planned.position] if stage.stage.name]
            hint = did_you_mean(origin, names)
            raise type(error)(f"Dockerfile:{step.line}: {step.keyword} --from={origin}{hint}: {error}") from None

    def _triggers(self, expressions: Sequence[str], line: int) -> list[Instruction]:
        found: list[Instruction] = []
        for expression in expressions:
            syntax = parse(expression.encode("utf-8", "surrogateescape"))
            if len(syntax.nodes) != 1:
                raise DockerfileError("onbuild trigger should be a single expression", line, "FROM")
            (node,) = syntax.nodes
            if node.keyword.upper() in ("FROM", "ONBUILD", "MAINTAINER"):
                raise DockerfileError(f"{node.keyword.upper()} isn't allowed as an ONBUILD trigger", line)
            # Whatever is wrong with it, the FROM brought it here.
            found.append(instruction_of(replace(node, start=line, end=line)))
        return found

    def _image(self, name: str, platform: Platform | None) -> asyncio.Task[Image]:
        key = (name, str(platform or ""))
        if key not in self._brought:
            self._brought[key] = asyncio.create_task(self._bring(name, platform))
        return self._brought[key]

    async def _bring(self, name: str, platform: Platform | None) -> Image:
        if not self._always_pull:
            try:
                image = await asyncio.to_thread(self._images.get, name)
                if platform is None or platform.runs(image.config.platform):
                    return image
            except NotFound:
                pass
        self._tell(progress.Pulling(name))
        try:
            return await self._pull(Reference.parse(name), platform or self._target)
        except EngineError:
            if not self._always_pull:
                raise
            # Only here, never pushed: --pull means the newest there is.
            return await asyncio.to_thread(self._images.get, name)
