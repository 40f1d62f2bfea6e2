"""Where one system keeps what: every path, address and setting of `shipway up`, worked out in one place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.settings import default_data


@dataclass(frozen=True)
class Address:
    """A TCP address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def reached_at(self) -> str:
        """As a client on this machine writes it: nobody connects to `0.0.0.0`."""
        return f"127.0.0.1:{self.port}" if self.host in ("0.0.0.0", "::") else str(self)  # noqa: S104


@dataclass(frozen=True)
class Layout:
    """One system: its folders, sockets and addresses."""

    data: Path
    server: Address
    registry: Address
    metrics: Address
    broker_url: str | None = None
    """None: the bundled broker, on a socket in the data folder."""

    @classmethod
    def of(cls, data: Path) -> Layout:
        """The system that keeps everything in `data`, at the usual addresses."""
        return cls(data, Address("127.0.0.1", 7700), Address("127.0.0.1", 7750), Address("127.0.0.1", 7701))

    @property
    def run(self) -> Path:
        """Sockets and what else ends with the machine. Short, for a socket's path has at most 107 bytes."""
        if self.data == default_data():
            return Path("/run/shipway")
        return Path(f"/run/shipway-{hashlib.sha256(str(self.data).encode()).hexdigest()[:8]}")

    @property
    def engine_data(self) -> Path:
        return self.data / "engine"

    @property
    def engine_socket(self) -> Path:
        return self.run / "engine.sock"

    @property
    def broker_data(self) -> Path:
        return self.data / "broker"

    @property
    def registry_data(self) -> Path:
        return self.data / "registry"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def server_url(self) -> str:
        return f"http://{self.server.reached_at}"

    def environment(self, inherited: Mapping[str, str], broker_url: str) -> dict[str, str]:
        """What the parts are told, over what this process was told itself."""
        return {
            **inherited,
            "SHIPWAY_DATA": str(self.data),
            "SHIPWAY_BROKER_URL": broker_url,
            "SHIPWAY_SERVER_URL": self.server_url,
            "SHIPWAY_LISTEN_HOST": self.server.host,
            "SHIPWAY_LISTEN_PORT": str(self.server.port),
            "SHIPWAY_REGISTRY_URL": self.registry.reached_at,
            "SHIPWAY_ENGINE": f"unix://{self.engine_socket}",
            "PYTHONUNBUFFERED": "1",
        }
