"""Containers on networks: plugging them in, publishing their ports, and taking them off again."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

from engine.config import EngineConfig
from engine.errors import Conflict, Forbidden, InvalidInput, NotFound
from engine.network import addresses, nameserver, options, veth
from engine.network.model import Endpoint, Network, PortBinding, PortMapping
from engine.network.names import Names
from engine.network.plumbing import Plumbing, endpoints_of, unplug_now
from engine.network.pools import AddressPools
from engine.network.ports import HostPorts
from engine.network.relay import LoopbackRelays
from engine.network.resolver import Resolver
from engine.network.store import NetworkStore
from engine.threads import to_the_end

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SWEEP_SECONDS = 3.0
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class Attachments:
    """What containers have of the networks there are. All methods run on the engine's loop."""

    def __init__(self, config: EngineConfig, store_path: Path) -> None:
        self._config = config
        self._networks: dict[str, Network] = {}
        self._pools = AddressPools()
        self._ports = HostPorts()
        self._relays = LoopbackRelays(self._ports)
        self._plumbing = Plumbing(config, NetworkStore(store_path, config.exec_root / "network"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._resolver = Resolver(config.dns)
        self._changing = asyncio.Lock()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def get(self, name_or_id: str) -> Network:
        """The network of that name, id, or beginning of an id. Raises NotFound or InvalidInput."""
        if name_or_id == "default":
            name_or_id = "bridge"
        if name_or_id in self._networks:
            return self._networks[name_or_id]
        for network in self._networks.values():
            if network.name == name_or_id:
                return network
        found = [one for known, one in self._networks.items() if name_or_id and known.startswith(name_or_id)]
        if len(found) > 1:
            raise InvalidInput(f"network {name_or_id} is ambiguous ({len(found)} matches found)")
        if not found:
            raise NotFound(f"network {name_or_id} not found")
        return found[0]

    async def attach(
        self,
        network: str,
        container_id: str,
        netns: Path,
        *,
        aliases: Sequence[str] = (),
        links: Sequence[str] = (),
        ports: Sequence[PortMapping] = (),
        address: str | None = None,
        address6: str | None = None,
        mac: str | None = None,
        dns: Sequence[str] = (),
        driver_options: Mapping[str, str] = _NO_OPTIONS,
    ) -> Endpoint:
        """Give the container behind `netns` an interface on the network, publish its ports, answer its names.

        `aliases` are the names by which its neighbours find it, `links` (NAME:ALIAS) its own for them; `dns` takes
        the place of the host's resolvers. The first network that leads outside becomes the default route.

        Raises:
            Conflict: a host port or the address is taken.
            Forbidden: the container is on that network already.
            InvalidInput: a wish makes no sense.
            SystemFailure: the kernel refused. Nothing of the attempt is left then, whatever the reason.
        """
        target = self.get(network)
        if target.driver != "bridge":
            raise InvalidInput(f"containers can't be attached to the {target.name} network")
        if container_id in target.endpoints:
            raise Forbidden(f"endpoint of container {container_id[:12]} already exists in network {target.name}")
        if address6 and not target.subnet6:
            raise InvalidInput(f"network {target.name} has no IPv6, and no address {address6}: create it with --ipv6")
        mac = addresses.parse_mac(mac) if mac else ""
        mine = self.endpoints(container_id)
        interface = _interface(target, mine, options.interface_name(driver_options))
        bindings = self._reserve(target, ports)
        try:
            ip, ip6 = self._pools.take(target, address, address6)
        except BaseException:
            self._ports.release(bindings)
            raise
        known = secrets.token_hex(32)
        endpoint = Endpoint(
            id=known,
            network_id=target.id,
            container_id=container_id,
            netns=str(netns),
            ip=ip,
            prefix=ip_network(target.subnet).prefixlen,
            gateway="" if target.internal else target.gateway,
            ip6=ip6,
            prefix6=ip_network(target.subnet6).prefixlen if ip6 else 0,
            gateway6=target.gateway6 if ip6 and not target.internal else "",
            mac=mac or addresses.mac_for(ip),
            interface=interface,
            host_interface=f"v{self._config.instance}{known[:6]}",
            aliases=list(dict.fromkeys(aliases)),
            links=list(links),
            dns=list(dns),
            ports=[*bindings],
        )
        attach = partial(
            self._plumbing.attach,
            target,
            endpoint,
            default_route=bool(endpoint.gateway) and not any(other.gateway for other in mine),
            default_route6=bool(endpoint.gateway6) and not any(other.gateway6 for other in mine),
        )
        target.endpoints[container_id] = endpoint
        try:
            await self._run(attach)
            await self._relays.open(endpoint)
            await self._serve_names(endpoint)
        except BaseException:
            await self._withdraw(target, endpoint)
            await asyncio.to_thread(unplug_now, endpoint.host_interface)
            raise
        return endpoint

    async def publish(self, container_id: str, ports: Sequence[PortMapping]) -> Sequence[PortBinding]:
        """Publish ports of a container that is on networks already, by the first that leads outside.

        Raises Conflict, InvalidInput or SystemFailure; none of the ports is published then.
        """
        for endpoint in self.endpoints(container_id):
            network = self._networks[endpoint.network_id]
            if network.internal or endpoint.ports:
                continue
            endpoint.ports = [*self._reserve(network, ports)]
            try:
                await self._run(self._plumbing.publish, endpoint)
                try:
                    await self._relays.open(endpoint)
                except BaseException:
                    self._relays.close(endpoint)
                    await self._run(self._plumbing.unpublish, endpoint)
                    raise
            except BaseException:
                self._ports.release(endpoint.ports)
                endpoint.ports = []
                raise
            return endpoint.ports
        return ()

    async def disconnect(self, network: str, container_id: str, *, netns: Path | None = None) -> Endpoint:
        """Take a running container off one network; its interface is gone on return.

        With `netns` given, another of its networks becomes the default route where this one was.
        """
        target = self.get(network)
        endpoint = target.endpoints.get(container_id)
        if endpoint is None:
            raise Forbidden(f"container {container_id[:12]} is not connected to network {target.name}")
        await self._withdraw(target, endpoint)
        await asyncio.to_thread(unplug_now, endpoint.host_interface)
        left = [other for other in self.endpoints(container_id) if other.gateway]
        if netns is not None:
            # One that has both ways out goes first.
            for other in sorted(left, key=lambda one: not one.gateway6):
                await self._run(veth.route_by, netns, other)
        return endpoint

    async def rename(self, container_id: str, old: str, new: str) -> None:
        """Let a container's neighbours find it by `new` instead of `old`."""
        for endpoint in self.endpoints(container_id):
            endpoint.aliases = [new if alias == old else alias for alias in endpoint.aliases]
            await self._run(self._plumbing.remember, endpoint)

    async def detach(self, container_id: str) -> None:
        """Take a container off all its networks. Idempotent.

        Its namespace ends with its last process, and with that the kernel removes the interfaces; whatever
        outlives that is swept a little later, off everyone's path.
        """
        for endpoint in self.endpoints(container_id):
            await self._withdraw(self._networks[endpoint.network_id], endpoint)
            self._sweep_later()

    def endpoints(self, container_id: str) -> Sequence[Endpoint]:
        """The container's endpoints."""
        return list(endpoints_of(self._networks.values(), container_id))

    def nameserver(self, network: str) -> str | None:
        """The address at which containers of the network find the resolver, if it has one."""
        return nameserver.ADDRESS if self.get(network).has_names else None

    async def _run(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await to_the_end(partial(function, *arguments), self._thread)

    def _reserve(self, network: Network, ports: Sequence[PortMapping]) -> Sequence[PortBinding]:
        if network.internal:
            return ()
        usual = options.host_binding(network.options)
        wanted = [msgspec.structs.replace(one, host_ip=one.host_ip or usual) for one in ports] if usual else ports
        return self._ports.reserve(wanted, ipv6=bool(network.subnet6))

    def _adopt(self, endpoint: Endpoint) -> None:
        for lost in self._ports.adopt(endpoint.ports):
            _log.warning(
                "port %s:%d/%s is bound by another program, and yet leads to container %s",
                lost.host_ip,
                lost.host_port,
                lost.protocol,
                endpoint.container_id[:12],
            )

    async def _withdraw(self, network: Network, endpoint: Endpoint) -> None:
        if network.endpoints.get(endpoint.container_id) is not endpoint:
            return
        del network.endpoints[endpoint.container_id]
        if not any(self._networks[one.network_id].has_names for one in self.endpoints(endpoint.container_id)):
            self._resolver.withdraw(endpoint.container_id)
        try:
            await self._run(self._plumbing.withdraw, endpoint)
        finally:
            self._give_back(network, endpoint)

    def _give_back(self, network: Network, endpoint: Endpoint) -> None:
        self._relays.close(endpoint)
        self._ports.release(endpoint.ports)
        self._pools.give_back(network, endpoint)

    async def _serve_names(self, endpoint: Endpoint) -> None:
        """Where the container has come onto a network with names, and had none before."""
        container_id = endpoint.container_id
        if self._resolver.serves(container_id) or not self._networks[endpoint.network_id].has_names:
            return
        sockets = await self._run(nameserver.open_sockets, Path(endpoint.netns))
        await self._resolver.serve(container_id, sockets, Names(self._networks, container_id))

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._start_sweep)

    def _start_sweep(self) -> None:
        self._sweep = None
        self._sweeping = asyncio.create_task(self._sweep_interfaces())

    async def _sweep_interfaces(self) -> None:
        alive = {one.host_interface: one for one in endpoints_of(self._networks.values())}
        for name in await self._run(self._plumbing.strays, alive):
            await asyncio.to_thread(unplug_now, name)


def _interface(network: Network, mine: Sequence[Endpoint], wanted: str) -> str:
    """The name that is wanted, or the first free one, for an interface in the container."""
    prefix, taken = options.interface_prefix(network.options), {endpoint.interface for endpoint in mine}
    if wanted in taken:
        raise Conflict(f"the container has an interface {wanted} already")
    if wanted:
        return wanted
    return next(name for name in (f"{prefix}{number}" for number in range(len(taken) + 1)) if name not in taken)
