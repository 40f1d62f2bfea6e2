"""Asking a container how it is."""

from __future__ import annotations

import asyncio
import logging

from engine.containers import times
from engine.containers.execs import Executions
from engine.containers.model import Container, Health, HealthConfig, HealthResult
from engine.containers.room import Room
from engine.errors import EngineError

_log = logging.getLogger(__name__)
_SECOND = 1_000_000_000
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3
_LONGEST_OUTPUT = 4096
_REMEMBERED = 5


def wanted(config: HealthConfig | None) -> bool:
    return config is not None and bool(config.test) and config.test[0] != "NONE"


def command(config: HealthConfig, shell: list[str] | None) -> list[str]:
    """What is executed. A CMD-SHELL line is read by the image's shell."""
    if config.test[0] == "CMD-SHELL":
        return [*(shell or ["/bin/sh", "-c"]), *config.test[1:]]
    return list(config.test[1:])


def judge(health: Health, result: HealthResult, retries: int, *, starting: bool) -> str:
    """Takes one more result into account; the new status. Pure but for `health`.

    In the start period failures do not count, and one success ends it.
    """
    health.log = [*health.log, result][-_REMEMBERED:]
    if result.exit_code == 0:
        health.failing_streak, health.status = 0, "healthy"
    elif not (starting and health.status == "starting"):
        health.failing_streak += 1
        if health.failing_streak >= retries:
            health.status = "unhealthy"
    return health.status


class HealthMonitor:
    """One task a container that has a health check and runs."""

    def __init__(self, room: Room, executions: Executions) -> None:
        self._room = room
        self._executions = executions

    def begin(self, container: Container) -> None:
        """At a start: nothing is known of how it is."""
        container.state.health = None
        self.resume(container)

    def resume(self, container: Container) -> None:
        """At the engine's own start: what runs already is as well as it was when it was asked last."""
        if not wanted(container.config.healthcheck):
            container.state.health = None
            return
        if container.state.health is None:
            container.state.health = Health()
        live = self._room.registry.live(container)
        live.cancel_health()
        live.health = asyncio.create_task(self._watch(container))

    async def _watch(self, container: Container) -> None:
        config = container.config.healthcheck
        assert config is not None
        started = times.parse_rfc3339(container.state.started_at)
        while True:
            starting = times.now() < started + config.start_period
            health = container.state.health
            if starting and health is not None and health.status == "starting":
                pause = config.start_interval or _START_INTERVAL
            else:
                pause = config.interval or _INTERVAL
            await asyncio.sleep(pause / _SECOND)
            if container.state.status != "running" or container.state.health is None:
                continue
            starting = times.now() < started + config.start_period
            result = await self._probe(container, config)
            self._take(container, result, config, starting=starting)

    def _take(self, container: Container, result: HealthResult, config: HealthConfig, *, starting: bool) -> None:
        health = container.state.health
        if health is None or container.state.status != "running":
            return
        before = health.status
        after = judge(health, result, config.retries or _RETRIES, starting=starting)
        if after != before:
            self._room.registry.save(container)
            self._room.tell(container, f"health_status: {after}")

    async def _probe(self, container: Container, config: HealthConfig) -> HealthResult:
        begun = times.now()
        timeout = config.timeout or _TIMEOUT
        output = bytearray()
        try:
            execution = self._executions.create(container, command(config, container.config.shell))
            session = await self._executions.start(execution)
            assert session is not None
            try:
                async with asyncio.timeout(timeout / _SECOND):
                    async for _, data in session.output():
                        output += data[: _LONGEST_OUTPUT - len(output)]
                    code = await asyncio.shield(execution.ended)
            except TimeoutError:
                await self._room.launcher.kill(container.id, 9, exec_id=execution.id)
                code = -1
                said = f": {output.decode(errors='replace')}" if output else ""
                output[:] = f"Health check exceeded timeout ({times.go_duration(timeout)}){said}".encode()
            finally:
                await session.close()
        except EngineError as error:
            code, output = -1, bytearray(str(error).encode())
        return HealthResult(
            start=times.rfc3339(begun),
            end=times.rfc3339(times.now()),
            exit_code=code,
            output=output.decode(errors="replace"),
        )
