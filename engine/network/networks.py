"""The networks of one engine: the room's face."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from engine.config import EngineConfig
from engine.errors import Conflict, Forbidden, InvalidInput, NotFound
from engine.network import addresses, bridge, conntrack, links, veth
from engine.network.firewall import Firewall, Published, Side
from engine.network.model import Endpoint, Network, PortBinding, PortMapping
from engine.network.netlink import Netlink, NetlinkError
from engine.network.ports import HostPorts
from engine.network.resolver import Resolver
from engine.network.store import NetworkStore

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_BRIDGE_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_SWEEP_SECONDS = 3.0


class Networks:
    """Creates networks, and plugs containers into them.

    All methods run on the engine's loop. What touches the kernel runs in one thread of this object's own:
    it enters containers' network namespaces, and keeps requests in order.
    """

    def __init__(self, config: EngineConfig, store_path: Path) -> None:
        self._config = config
        self._store = NetworkStore(store_path, config.exec_root / "network")
        self._networks: dict[str, Network] = {}
        self._addresses: dict[str, addresses.Addresses] = {}
        self._bridges: dict[str, int] = {}
        self._ports = HostPorts()
        self._firewall = Firewall(config.nft_table)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._netlink: Netlink | None = None
        self._resolver = Resolver(config.dns)
        self._changing = asyncio.Lock()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None

    # The engine's life

    async def start(self) -> None:
        """Make what should be there, and reclaim what an earlier life of this engine left behind.

        Raises:
            SystemFailure: the kernel has no bridges or no nf_tables, or refuses to forward.
        """
        for name, driver in (("host", "host"), ("none", "null")):
            known = hashlib.sha256(f"{self._config.instance} {name}".encode()).hexdigest()
            self._networks[known] = Network(known, name, driver, created=time.time())
        await self._run(self._start)
        for network in self._bridged():
            await self._serve_names(network)

    def _start(self) -> None:
        bridge.enable_forwarding()
        netlink = self._kernel()
        self._networks |= self._store.load()
        with bridge.subnet_lock():
            present = {link.name for link in links.list_links(netlink)}
            used = links.used_subnets(netlink)
            if not any(network.name == "bridge" for network in self._networks.values()):
                subnet = self._choose(used)
                self._add_default(subnet)
            for network in list(self._bridged()):
                endpoints = network.endpoints
                if network.bridge not in present and not endpoints and network.name == "bridge":
                    subnet = IPv4Network(network.subnet)
                    if any(subnet.overlaps(other) for other in used):
                        subnet = self._choose(used)
                        network.subnet, network.gateway = str(subnet), str(subnet[1])
                        self._store.save(network)
                self._realise(network)
        own = {network.bridge for network in self._bridged()}
        for network in self._bridged():
            for endpoint in list(network.endpoints.values()):
                if endpoint.host_interface in present:
                    self._adopt(network, endpoint)
                else:
                    del network.endpoints[endpoint.container_id]
                    self._store.forget_endpoint(endpoint)
        own |= {endpoint.host_interface for endpoint in self._endpoints()}
        mine = (self._config.bridge, f"s{self._config.instance}", f"v{self._config.instance}")
        for name in present - own:
            if name.startswith(mine):
                veth.unplug(netlink, name)
        self._rebuild()

    async def reconcile(self, live: Collection[str]) -> None:
        """Give back what containers that are not in `live` still hold."""
        for endpoint in list(self._endpoints()):
            if endpoint.container_id not in live:
                await self.detach(endpoint.container_id)

    async def close(self, *, keep: bool = False) -> None:
        """End; takes bridges and rules away unless `keep` (containers stay on them, for a later life)."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._sweeping is not None:
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self._resolver.close()
        if not keep:
            for endpoint in list(self._endpoints()):
                await self.detach(endpoint.container_id)
            if self._sweep is not None:
                self._sweep.cancel()
            await self._run(self._take_down)
        self._ports.close()
        await self._run(self._close)
        self._thread.shutdown()

    def _take_down(self) -> None:
        self._firewall.remove()
        for network in self._bridged():
            bridge.remove(self._kernel(), network.bridge)
        prefix = f"v{self._config.instance}"
        for link in links.list_links(self._kernel()):
            if link.name.startswith(prefix):
                veth.unplug(self._kernel(), link.name)

    def _close(self) -> None:
        self._firewall.close()
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    # Networks

    def list(self) -> list[Network]:
        return sorted(self._networks.values(), key=lambda network: network.created)

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

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: str | None = None,
        gateway: str | None = None,
        ip_range: str | None = None,
        internal: bool = False,
        attachable: bool = False,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Network:
        """Make a bridge network. Without `subnet` it gets one that nothing on this host uses.

        Raises:
            Conflict: the name, or the subnet, is taken.
            InvalidInput: a value makes no sense.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(f'invalid network name "{name}": only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed')
        if driver not in {"", "bridge"}:
            raise NotFound(f'network driver "{driver}" is not there: use bridge')
        known = secrets.token_hex(32)
        options = dict(options or {})
        network = Network(
            id=known,
            name=name,
            driver="bridge",
            created=time.time(),
            bridge=options.get(_BRIDGE_NAME) or f"s{self._config.instance}{known[:6]}",
            internal=internal,
            attachable=attachable,
            labels=dict(labels or {}),
            options=options,
        )
        if len(network.bridge) > 15 or "/" in network.bridge:
            raise InvalidInput(f'invalid bridge name "{network.bridge}": at most 15 characters, no slash')
        _mtu(network)
        async with self._changing:
            if any(other.name == name for other in self._networks.values()):
                raise Conflict(f"network with name {name} already exists")
            await self._run(self._create, network, subnet, gateway, ip_range)
            await self._serve_names(network)
        return network

    def _create(
        self, network: Network, subnet: str | None, gateway: str | None, ip_range: str | None
    ) -> None:
        with bridge.subnet_lock():
            used = links.used_subnets(self._kernel())
            used += [IPv4Network(other.subnet) for other in self._bridged()]
            chosen = addresses.parse_subnet(subnet) if subnet else self._choose(used)
            if chosen.prefixlen > 30:
                raise InvalidInput(f"subnet {chosen} is too small for a network: use a /30 or larger")
            if any(chosen.overlaps(other) for other in used):
                raise Conflict(f"Pool overlaps with other one on this address space: {chosen} is in use")
            door = addresses.parse_address(gateway.partition("/")[0]) if gateway else chosen[1]
            if door not in chosen:
                raise InvalidInput(f"gateway {door} is not in the subnet {chosen}")
            if ip_range and not addresses.parse_subnet(ip_range).subnet_of(chosen):
                raise InvalidInput(f"address range {ip_range} is not in the subnet {chosen}")
            network.subnet, network.gateway, network.ip_range = str(chosen), str(door), ip_range or ""
            if any(link.name == network.bridge for link in links.list_links(self._kernel())):
                raise Conflict(f"an interface called {network.bridge} exists already")
            try:
                self._realise(network)
                self._networks[network.id] = network
                self._firewall.update_networks(self._sides())
                self._store.save(network)
            except BaseException:
                self._networks.pop(network.id, None)
                bridge.remove(self._kernel(), network.bridge)
                raise

    async def remove(self, name_or_id: str) -> Network:
        """Remove a network that no running container is on. Raises Forbidden, Conflict or NotFound."""
        network = self.get(name_or_id)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._changing:
            if network.endpoints:
                raise Forbidden(
                    f"error while removing network: network {network.name} id {network.id} "
                    "has active endpoints"
                )
            self.get(network.id)
            del self._networks[network.id]
            await self._resolver.withdraw(network.gateway)
            await self._run(self._remove, network)
        return network

    def _remove(self, network: Network) -> None:
        self._firewall.update_networks(self._sides())
        bridge.remove(self._kernel(), network.bridge)
        self._bridges.pop(network.id, None)
        self._addresses.pop(network.id, None)
        self._store.forget(network)

    async def prune(self, keep: Callable[[Network], bool] = lambda _: False) -> Sequence[Network]:
        """Remove every network that no running container is on; `keep` says which to leave."""
        removed: list[Network] = []
        for network in self.list():
            if not network.predefined and not network.endpoints and not keep(network):
                with contextlib.suppress(Conflict, NotFound, Forbidden):
                    removed.append(await self.remove(network.id))
        return removed

    # Containers on networks

    async def attach(
        self,
        network: str,
        container_id: str,
        netns: Path,
        *,
        aliases: Sequence[str] = (),
        ports: Sequence[PortMapping] = (),
        address: str | None = None,
        mac: str | None = None,
    ) -> Endpoint:
        """Give the container behind `netns` an interface on the network, and publish its ports.

        `aliases` are the names by which its neighbours find it. The first network that leads outside becomes
        the default route.

        Raises:
            Conflict: a host port or the address is taken, or the container is on that network already.
            InvalidInput: a wish makes no sense.
            SystemFailure: the kernel refused. Nothing of the attempt is left then, whatever the reason.
        """
        target = self.get(network)
        if target.driver != "bridge":
            raise InvalidInput(f"containers can't be attached to the {target.name} network")
        if container_id in target.endpoints:
            raise Forbidden(
                f"endpoint of container {container_id[:12]} already exists in network {target.name}"
            )
        if target.internal:
            ports = ()
        pool = self._addresses[target.id]
        bindings = self._ports.reserve(ports)
        try:
            chosen = pool.take(address)
        except BaseException:
            self._ports.release(bindings)
            raise
        mine = list(self._endpoints(container_id))
        taken = {endpoint.interface for endpoint in mine}
        known = secrets.token_hex(32)
        endpoint = Endpoint(
            id=known,
            network_id=target.id,
            container_id=container_id,
            ip=str(chosen),
            prefix=pool.subnet.prefixlen,
            gateway="" if target.internal else target.gateway,
            mac=mac or addresses.mac_for(chosen),
            interface=next(name for name in map("eth{}".format, range(64)) if name not in taken),
            host_interface=f"v{self._config.instance}{known[:6]}",
            aliases=list(dict.fromkeys(aliases)),
            ports=bindings,
        )
        leads_outside = not target.internal and not any(other.gateway for other in mine)
        target.endpoints[container_id] = endpoint
        try:
            await self._run(self._attach, target, endpoint, netns, leads_outside)
        except BaseException:
            target.endpoints.pop(container_id, None)
            self._give_back(target, endpoint)
            raise
        return endpoint

    connect = attach

    def _attach(self, network: Network, endpoint: Endpoint, netns: Path, leads_outside: bool) -> None:
        veth.plug(
            self._kernel(),
            endpoint,
            netns,
            bridge=self._bridges[network.id],
            default_route=leads_outside,
            mtu=_mtu(network),
        )
        try:
            self._firewall.publish(_published(endpoint))
            self._forget_flows(endpoint.ports)
            self._store.save_endpoint(endpoint)
        except BaseException:
            veth.unplug(self._kernel(), endpoint.host_interface)
            with contextlib.suppress(NetlinkError):
                self._firewall.unpublish(_published(endpoint))
            raise

    async def loopback(self, netns: Path) -> None:
        """Bring `lo` up for a container that is on no network at all."""
        await self._run(veth.loopback_up, netns)

    async def disconnect(self, network: str, container_id: str, *, netns: Path | None = None) -> Endpoint:
        """Take a running container off one network; its interface is gone on return.

        With `netns` given, another of its networks becomes the default route where this one was.
        """
        target = self.get(network)
        endpoint = target.endpoints.get(container_id)
        if endpoint is None:
            raise Forbidden(f"container {container_id[:12]} is not connected to network {target.name}")
        await self._withdraw(target, endpoint)
        await asyncio.to_thread(_unplug_now, endpoint.host_interface)
        left = [other for other in self._endpoints(container_id) if other.gateway]
        if netns is not None and left:
            await self._run(veth.route_by, netns, left[0])
        return endpoint

    async def detach(self, container_id: str) -> None:
        """Take a container off all its networks. Idempotent.

        Its namespace ends with its last process, and with that the kernel removes the interfaces; whatever
        outlives that is swept a little later, off everyone's path.
        """
        for endpoint in list(self._endpoints(container_id)):
            await self._withdraw(self._networks[endpoint.network_id], endpoint)
            self._sweep_later()

    def endpoints(self, container_id: str) -> Sequence[Endpoint]:
        """The container's endpoints, in the order in which it was attached."""
        return list(self._endpoints(container_id))

    def nameserver(self, network: str) -> str | None:
        """The address at which containers of the network find the resolver, if it has one."""
        target = self.get(network)
        return target.gateway or None

    async def _withdraw(self, network: Network, endpoint: Endpoint) -> None:
        if network.endpoints.get(endpoint.container_id) is not endpoint:
            return
        del network.endpoints[endpoint.container_id]
        try:
            await self._run(self._close_endpoint, endpoint)
        finally:
            self._give_back(network, endpoint)

    def _close_endpoint(self, endpoint: Endpoint) -> None:
        self._firewall.unpublish(_published(endpoint))
        self._forget_flows(endpoint.ports)
        self._store.forget_endpoint(endpoint)

    def _give_back(self, network: Network, endpoint: Endpoint) -> None:
        self._ports.release(endpoint.ports)
        if network.id in self._addresses:
            self._addresses[network.id].give_back(endpoint.ip)

    # Small things

    def _run(self, function: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _kernel(self) -> Netlink:
        if self._netlink is None:
            self._netlink = Netlink()
        return self._netlink

    def _bridged(self) -> Iterator[Network]:
        return (network for network in self._networks.values() if network.driver == "bridge")

    def _endpoints(self, container_id: str | None = None) -> Iterator[Endpoint]:
        for network in list(self._networks.values()):
            if container_id is None:
                yield from list(network.endpoints.values())
            elif container_id in network.endpoints:
                yield network.endpoints[container_id]

    def _choose(self, used: Collection[IPv4Network]) -> IPv4Network:
        return addresses.choose_subnet(addresses.parse_pools(self._config.default_address_pool), used)

    def _add_default(self, subnet: IPv4Network) -> None:
        network = Network(
            id=secrets.token_hex(32),
            name="bridge",
            driver="bridge",
            created=time.time(),
            subnet=str(subnet),
            gateway=str(subnet[1]),
            bridge=self._config.bridge,
        )
        self._networks[network.id] = network
        self._store.save(network)

    def _realise(self, network: Network) -> None:
        subnet = IPv4Network(network.subnet)
        gateway = IPv4Address(network.gateway)
        ip_range = IPv4Network(network.ip_range) if network.ip_range else None
        self._bridges[network.id] = bridge.ensure(
            self._kernel(), network.bridge, network.gateway, subnet.prefixlen
        )
        self._addresses[network.id] = addresses.Addresses(subnet, gateway, ip_range)

    def _adopt(self, network: Network, endpoint: Endpoint) -> None:
        with contextlib.suppress(Conflict):
            self._addresses[network.id].take(endpoint.ip)
        for lost in self._ports.adopt(endpoint.ports):
            _log.warning(
                "port %s:%d/%s is bound by another program, and yet leads to container %s",
                lost.host_ip,
                lost.host_port,
                lost.protocol,
                endpoint.container_id[:12],
            )

    def _sides(self) -> Sequence[Side]:
        return [
            Side(
                network.bridge,
                network.subnet,
                internal=network.internal,
                masquerade=network.options.get(_MASQUERADE, "true") != "false",
            )
            for network in self._bridged()
        ]

    def _rebuild(self) -> None:
        published = [one for endpoint in self._endpoints() for one in _published(endpoint)]
        published += self._resolver.redirections
        self._firewall.rebuild(self._sides(), published)

    @staticmethod
    def _forget_flows(bindings: Sequence[PortBinding]) -> None:
        ports = {binding.host_port for binding in bindings if binding.protocol == "udp"}
        if ports:
            with contextlib.suppress(NetlinkError):
                conntrack.forget_udp(ports)

    async def _serve_names(self, network: Network) -> None:
        def lookup(name: str) -> list[str]:
            return [endpoint.ip for endpoint in network.endpoints.values() if name in _names(endpoint)]

        def reverse(address: str) -> str | None:
            for endpoint in network.endpoints.values():
                if endpoint.ip == address and endpoint.aliases:
                    return f"{endpoint.aliases[0]}.{network.name}"
            return None

        try:
            redirected = await self._resolver.serve(network.gateway, lookup, reverse)
        except OSError as error:
            _log.warning("no names on network %s: %s", network.name, error)
            return
        await self._run(self._firewall.publish, redirected)

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._start_sweep)

    def _start_sweep(self) -> None:
        self._sweep = None
        self._sweeping = asyncio.create_task(self._sweep_interfaces())

    async def _sweep_interfaces(self) -> None:
        present = await self._run(lambda: links.list_links(self._kernel()))
        alive = {endpoint.host_interface for endpoint in self._endpoints()}
        for link in present:
            if link.name.startswith(f"v{self._config.instance}") and link.name not in alive:
                await asyncio.to_thread(_unplug_now, link.name)


def _unplug_now(host_interface: str) -> None:
    with Netlink() as netlink:
        veth.unplug(netlink, host_interface)


def _published(endpoint: Endpoint) -> list[Published]:
    return [Published.of(binding, endpoint.ip) for binding in endpoint.ports]


def _names(endpoint: Endpoint) -> set[str]:
    return {endpoint.container_id[:12], *(alias.lower() for alias in endpoint.aliases)}


def _mtu(network: Network) -> int | None:
    value = network.options.get(_MTU)
    if not value:
        return None
    if not value.isdigit() or not 68 <= int(value) <= 65535:
        raise InvalidInput(f'invalid {_MTU} "{value}": give a number of bytes, like 1400')
    return int(value)
