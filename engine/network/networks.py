"""The networks of one engine: the room's face."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence

from engine.errors import Conflict, Forbidden, InvalidInput, NotFound, SystemFailure
from engine.network import doctor, options
from engine.network.attachments import Attachments
from engine.network.model import Network
from engine.network.netlink import NetlinkError
from engine.network.placing import Wishes
from engine.network.plumbing import endpoints_of

_log = logging.getLogger(__name__)

_LONGEST_NAME = 253
_NO_WISHES = Wishes()


class Networks(Attachments):
    """Creates networks, and plugs containers into them. All methods run on the engine's loop."""

    async def start(self) -> None:
        """Make what should be there, and reclaim what an earlier life of this engine left behind.

        Raises:
            Conflict: the default network's subnet is in use.
            InvalidInput: the default network's settings make no sense.
            SystemFailure: the kernel has no bridges or no nf_tables, or refuses to forward.
        """
        for name, driver in (("host", "host"), ("none", "null")):
            known = hashlib.sha256(f"{self._config.instance} {name}".encode()).hexdigest()
            self._networks[known] = Network(known, name, driver, created=time.time())
        default = Network(secrets.token_hex(32), "bridge", "bridge", time.time(), bridge=self._config.bridge)
        default.options = options.of_default(self._config.default_bridge)
        self._networks |= await self._run(self._plumbing.load, default)
        for network in self._bridged():
            self._pools.open(network)
            for endpoint in network.endpoints.values():
                self._adopt(endpoint)
                await self._relays.open(endpoint)
        await self._run(self._plumbing.rebuild, self._bridged())
        for warning in await self.warnings():
            _log.warning("%s", warning)

    async def reconcile(self, live: Collection[str]) -> None:
        """Give back what containers that are not in `live` still hold, and answer the others' names again."""
        for endpoint in list(endpoints_of(self._networks.values())):
            if endpoint.container_id not in live:
                await self.detach(endpoint.container_id)
                continue
            try:
                await self._serve_names(endpoint)
            except SystemFailure as error:
                _log.warning("container %s: %s", endpoint.container_id[:12], error)

    async def close(self, *, keep: bool = False) -> None:
        """End; takes bridges and rules away unless `keep` (containers stay on them, for a later life)."""
        self._resolver.close()
        self._relays.close_all()
        if not keep:
            for endpoint in list(endpoints_of(self._networks.values())):
                await self.detach(endpoint.container_id)
        if self._sweep is not None:
            self._sweep.cancel()
        if self._sweeping is not None:
            await asyncio.gather(self._sweeping, return_exceptions=True)
        if not keep:
            await self._run(self._plumbing.take_down, self._bridged())
        self._ports.close()
        await self._run(self._plumbing.close)
        self._thread.shutdown()

    def list(self) -> list[Network]:
        return sorted(self._networks.values(), key=lambda network: network.created)

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        wishes: Wishes = _NO_WISHES,
        internal: bool = False,
        attachable: bool = False,
        labels: dict[str, str] | None = None,
        driver_options: dict[str, str] | None = None,
        ipam_options: dict[str, str] | None = None,
    ) -> Network:
        """Make a bridge network. Without wishes it gets a subnet that nothing on this host uses.

        Where the host has no IPv6 the network has none either, whatever was wished.

        Raises:
            Conflict: the name, or the subnet, is taken.
            InvalidInput: a value makes no sense.
        """
        if not name.strip() or not name.isprintable() or "/" in name or len(name) > _LONGEST_NAME:
            raise InvalidInput(f"invalid network name {name[:80]!r}: 1 to {_LONGEST_NAME} printable characters, no /")
        if driver not in {"", "bridge"}:
            raise NotFound(f'network driver "{driver}" is not there: use bridge')
        known = secrets.token_hex(32)
        driver_options = dict(driver_options or {})
        options.check(driver_options)
        network = Network(
            id=known,
            name=name,
            driver="bridge",
            created=time.time(),
            bridge=options.bridge_name(driver_options, f"{self._config.bridge}{known[:5]}"),
            internal=internal,
            attachable=attachable,
            labels=dict(labels or {}),
            options=driver_options,
            ipam_options=ipam_options,
        )
        async with self._changing:
            if any(other.name == name for other in self._networks.values()):
                raise Conflict(f"network with name {name} already exists")
            await self._run(self._plumbing.create, network, self._bridged(), wishes)
            self._networks[known] = network
            self._pools.open(network)
        return network

    async def remove(self, name_or_id: str) -> Network:
        """Remove a network that no running container is on. Raises Forbidden or NotFound."""
        async with self._changing:
            network = self.get(name_or_id)
            if network.predefined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if network.endpoints:
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} has active endpoints"
                )
            del self._networks[network.id]
            self._pools.close(network)
            await self._run(self._plumbing.remove, network, self._bridged())
        return network

    async def prune(self, keep: Callable[[Network], bool] = lambda _: False) -> Sequence[Network]:
        """Remove every network that no running container is on; `keep` says which to leave."""
        removed: list[Network] = []
        for network in self.list():
            if not network.predefined and not network.endpoints and not keep(network):
                with contextlib.suppress(NotFound, Forbidden):
                    removed.append(await self.remove(network.id))
        return removed

    async def warnings(self) -> Sequence[str]:
        """What of this host stands in the networks' way, as it is now."""
        with_ipv6 = any(network.subnet6 for network in self._bridged())
        try:
            found = await asyncio.to_thread(doctor.hindrances, self._config, with_ipv6=with_ipv6)
        except NetlinkError as error:
            return [f"the host's rules can't be looked at: {error}"]
        return [f"{finding.detail}; let it through: {finding.remedy}" for finding in found]

    def _bridged(self) -> Sequence[Network]:
        return [network for network in self._networks.values() if network.driver == "bridge"]
