"""/networks."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import Struct, field

from engine.api import answer, filters
from engine.api.call import Call
from engine.api.router import Routes
from engine.containers import times
from engine.containers.filters import boolean, matches_labels
from engine.containers.model import EndpointSettings, from_json
from engine.errors import InvalidInput, NotFound
from engine.network import Network, Pool, Wishes, ipv6

routes = Routes()
_FILTERS = frozenset({"name", "id", "driver", "type", "label", "label!", "scope", "dangling", "until"})


class _Pool(Struct, rename="pascal"):
    subnet: str = ""
    gateway: str = ""
    ip_range: str = field(name="IPRange", default="")
    auxiliary_addresses: dict[str, str] = {}


class _Ipam(Struct, rename="pascal"):
    driver: str = ""
    options: dict[str, str] | None = None
    config: list[_Pool] = []


class _Creation(Struct, rename="pascal"):
    """What a client sends to have a network made."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    enable_ipv4: bool = field(name="EnableIPv4", default=True)
    enable_ipv6: bool = field(name="EnableIPv6", default=False)
    ipam: _Ipam = field(name="IPAM", default_factory=_Ipam)
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class _Connection(Struct, rename="pascal"):
    """What a client sends to have a container put on a network, or taken off it."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None
    force: bool = False


def _container_name(call: Call, container_id: str) -> str:
    try:
        return call.rooms.containers.get(container_id).name
    except NotFound:
        return ""


def _json(call: Call, network: Network, *, containers: bool) -> dict[str, Any]:
    ipam: list[dict[str, Any]] = []
    for subnet, gateway, ip_range in (
        (network.subnet, network.gateway, network.ip_range),
        (network.subnet6, network.gateway6, network.ip_range6),
    ):
        if subnet:
            ipam.append({"Subnet": subnet, "Gateway": gateway})
            if ip_range:
                ipam[-1]["IPRange"] = ip_range
            if aux := {name: one for name, one in network.auxiliary.items() if (":" in one) == (":" in subnet)}:
                ipam[-1]["AuxiliaryAddresses"] = aux
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": times.rfc3339(times.from_unix(network.created)),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(network.subnet6),
        "IPAM": {"Driver": "default", "Options": network.ipam_options, "Config": ipam},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": network.options,
        "Labels": network.labels,
    }
    if containers:
        shown["Containers"] = {
            endpoint.container_id: {
                "Name": _container_name(call, endpoint.container_id),
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac,
                "IPv4Address": f"{endpoint.ip}/{endpoint.prefix}",
                "IPv6Address": f"{endpoint.ip6}/{endpoint.prefix6}" if endpoint.ip6 else "",
            }
            for endpoint in network.endpoints.values()
        }
    return shown


def _fits(network: Network, wanted: dict[str, list[str]]) -> bool:
    return (
        filters.any_of(wanted.get("name"), lambda name: name in network.name)
        and filters.any_of(wanted.get("id"), network.id.startswith)
        and filters.any_of(wanted.get("driver"), lambda driver: driver == network.driver)
        and filters.any_of(wanted.get("scope"), lambda scope: scope == "local")
        and filters.any_of(wanted.get("type"), lambda kind: kind == ("builtin" if network.predefined else "custom"))
        and boolean(wanted, "dangling") in (None, not network.endpoints and not network.predefined)
        and matches_labels(network.labels, wanted)
    )


@routes.add("GET", "/networks")
async def list_(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    filters.check(wanted, _FILTERS)
    for kind in wanted.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidInput(f"invalid filter 'type={kind}'")
    return answer.json(
        [_json(call, network, containers=False) for network in call.rooms.networks.list() if _fits(network, wanted)]
    )


@routes.add("GET", "/networks/{ref}")
async def inspect(call: Call) -> web.StreamResponse:
    scope = call.text("scope")
    if scope not in {"", "local"}:
        raise NotFound(f"network {call.params['ref']} not found")
    return answer.json(_json(call, call.rooms.networks.get(call.params["ref"]), containers=True))


@routes.add("POST", "/networks/create")
async def create(call: Call) -> web.StreamResponse:
    asked = from_json(_Creation, await call.json())
    if asked.config_only or asked.ingress or asked.scope not in ("", "local"):
        raise InvalidInput("only networks of the local scope can be created")
    wishes = _wishes(asked)
    network = await call.rooms.networks.create(
        asked.name,
        driver=asked.driver or "bridge",
        wishes=wishes,
        internal=asked.internal,
        attachable=asked.attachable,
        labels=asked.labels,
        driver_options=asked.options,
        ipam_options=asked.ipam.options,
    )
    _publish(call, "create", network)
    return answer.json({"Id": network.id, "Warning": ipv6.ABSENT if wishes.ipv6 and not network.subnet6 else ""}, 201)


def _wishes(asked: _Creation) -> Wishes:
    """What subnets are asked for. An IPv6 subnet does not make an IPv6 network: Docker ignores it as well."""
    if not asked.enable_ipv4:
        raise InvalidInput("networks without IPv4 are not supported: leave IPv4 on, and add IPv6 with --ipv6")
    if (asked.ipam.driver or "default") != "default":
        raise NotFound(f'IPAM driver "{asked.ipam.driver}" is not there: use default')
    found: dict[int, Pool] = {}
    for config in asked.ipam.config:
        pool = Pool(config.subnet, config.gateway, config.ip_range, aux=config.auxiliary_addresses)
        version = 6 if ":" in (pool.subnet or pool.gateway) else 4
        if version in found:
            raise InvalidInput(f"a network has one IPv{version} subnet: give {pool.subnet} a network of its own")
        found[version] = pool
    return Wishes(found.get(4, Pool()), found.get(6, Pool()) if asked.enable_ipv6 else None)


@routes.add("DELETE", "/networks/{ref}")
async def remove(call: Call) -> web.StreamResponse:
    _publish(call, "destroy", await call.rooms.networks.remove(call.params["ref"]))
    return answer.empty()


@routes.add("POST", "/networks/{ref}/connect")
async def connect(call: Call) -> web.StreamResponse:
    asked = from_json(_Connection, await call.json())
    await call.rooms.containers.network_connect(
        call.rooms.networks.get(call.params["ref"]).name, asked.container, asked.endpoint_config
    )
    return answer.empty(200)


@routes.add("POST", "/networks/{ref}/disconnect")
async def disconnect(call: Call) -> web.StreamResponse:
    asked = from_json(_Connection, await call.json())
    await call.rooms.containers.network_disconnect(call.params["ref"], asked.container, force=asked.force)
    return answer.empty(200)


@routes.add("POST", "/networks/prune")
async def prune(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    filters.check(wanted, {"label", "label!", "until"})
    until = times.parse_since((wanted.get("until") or [""])[0])

    def keep(network: Network) -> bool:
        if until and times.from_unix(network.created) > until:
            return True
        return not matches_labels(network.labels, wanted)

    removed = await call.rooms.networks.prune(keep)
    for network in removed:
        _publish(call, "destroy", network)
    call.rooms.events.pruned("network", 0)
    return answer.json({"NetworksDeleted": [network.name for network in removed] or None})


def _publish(call: Call, action: str, network: Network) -> None:
    call.rooms.events.publish("network", action, network.id, {"name": network.name, "type": network.driver})
