from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from engine.containers.hostconfig import HostConfig
from engine.containers.model import from_json
from tests.engine.containers.conftest import rooms
from tests.engine.containers.harness import Rooms

__all__ = ["rooms"]

PYTHON = f"/py/bin/python{sys.version_info.major}.{sys.version_info.minor}"
TOOLS = [*(f"{folder}:{folder}:ro" for folder in ("/usr", "/lib", "/lib64")), f"{sys.base_prefix}:/py:ro"]
ENVIRONMENT = ["PATH=/bin", "PYTHONHOME=/py", "LD_LIBRARY_PATH=/py/lib", "PYTHONDONTWRITEBYTECODE=1"]


@dataclass
class Attacker:
    """Runs programs in containers with the host's Python lent to them: whatever an image could bring along."""

    rooms: Rooms

    def host(self, **more: Any) -> HostConfig:
        binds = [*TOOLS, *more.pop("Binds", ())]
        return from_json(HostConfig, {"NetworkMode": "none", "Binds": binds, **more})

    async def start(
        self, code: str, *, env: list[str] | None = None, config: dict[str, Any] | None = None, **host: Any
    ) -> str:
        """A container whose first process runs `code`."""
        environment = [*ENVIRONMENT, *(env or [])]
        return await self.rooms.start(PYTHON, "-c", code, host=self.host(**host), env=environment, **(config or {}))

    async def run(self, code: str, **more: Any) -> str:
        """What `code` printed; it must have ended well."""
        made = await self.start(code, **more)
        exited = await self.rooms.containers.wait(made)
        out, err = await self.rooms.said(made)
        await self.rooms.containers.remove(made)
        assert exited.code == 0, err.decode()
        return out.decode()


@pytest.fixture
def attacker(rooms: Rooms) -> Attacker:
    return Attacker(rooms)


@pytest.fixture(params=["own ids", "the host's ids"])
def ids(request: pytest.FixtureRequest) -> dict[str, str]:
    """The host configuration of a container with a user namespace, and of one whose root is the host's."""
    return {"UsernsMode": "host"} if request.param != "own ids" else {}
