"""Whether a container that was just started does well."""

from __future__ import annotations

import asyncio

from engine.containers import health
from engine.containers.model import Container
from engine.errors import Conflict

_LOOK_SECONDS = 0.02
_OBSERVED_SECONDS = 0.5
"""How long one without a health check must not fail."""


async def settled(container: Container, patience: float) -> bool:
    """True when it is healthy or, without a health check, has not failed at once; False after `patience` seconds of
    neither. Raises Conflict when it is unhealthy or has ended with an error."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    checked = health.wanted(container.config.healthcheck)
    observed = loop.time() + _OBSERVED_SECONDS
    while loop.time() < end:
        state = container.state
        if not state.alive or container.restart_count:
            if state.status == "exited" and state.exit_code == 0:
                return True
            raise Conflict(f"container {container.name} ended at once with exit code {state.exit_code}")
        if checked and state.health is not None:
            if state.health.status == "healthy":
                return True
            if state.health.status == "unhealthy":
                raise Conflict(f"container {container.name} is unhealthy{_last_words(container)}")
        elif loop.time() > observed:
            return True
        await asyncio.sleep(_LOOK_SECONDS)
    return False


def _last_words(container: Container) -> str:
    log = container.state.health.log if container.state.health is not None else []
    said = " ".join(log[-1].output.split())[:200] if log else ""
    return f": {said}" if said else ""
