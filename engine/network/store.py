"""Networks and endpoints on disk: one small JSON file each, replaced as a whole."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.network.model import Endpoint, Network

_T = TypeVar("_T", Network, Endpoint)
_log = logging.getLogger(__name__)


class NetworkStore:
    """Networks last, below `networks`; endpoints end with the machine, below `endpoints`."""

    def __init__(self, networks: Path, endpoints: Path) -> None:
        self._networks = networks
        self._endpoints = endpoints

    def load(self) -> dict[str, Network]:
        """Every network by its id, endpoints included."""
        self._networks.mkdir(parents=True, exist_ok=True)
        self._endpoints.mkdir(parents=True, exist_ok=True)
        networks = {network.id: network for network in _read_all(self._networks, Network)}
        for endpoint in _read_all(self._endpoints, Endpoint):
            if endpoint.network_id in networks:
                networks[endpoint.network_id].endpoints[endpoint.container_id] = endpoint
            else:
                self.forget_endpoint(endpoint)
        return networks

    def save(self, network: Network) -> None:
        """Write a network, without its endpoints."""
        _write(self._networks / f"{network.id}.json", msgspec.structs.replace(network, endpoints={}), sync=True)

    def forget(self, network: Network) -> None:
        (self._networks / f"{network.id}.json").unlink(missing_ok=True)

    def save_endpoint(self, endpoint: Endpoint) -> None:
        _write(self._endpoints / f"{endpoint.id}.json", endpoint, sync=False)

    def forget_endpoint(self, endpoint: Endpoint) -> None:
        (self._endpoints / f"{endpoint.id}.json").unlink(missing_ok=True)


def _read_all(folder: Path, kind: type[_T]) -> Iterator[_T]:
    for path in folder.glob("*.json"):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError) as error:
            # Half a file can only be one whose owner never heard that it was written.
            _log.warning("%s is not readable, ignored: %s", path, error)
            with contextlib.suppress(OSError):
                path.unlink()


def _write(path: Path, value: Network | Endpoint, *, sync: bool) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(value))
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
