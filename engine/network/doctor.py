"""What of this host helps or hinders networks, and what to do about it: looks, changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import EngineConfig
from engine.kernel.doctor import Finding
from engine.network import addresses, hostrules, ipv6, links, sysctl, upstream
from engine.network.netlink import Netlink, NetlinkError


def inspect(config: EngineConfig) -> list[Finding]:
    """For the engine with that configuration, whether it runs or not."""
    return [*_forwarding(config), _ipv6(), _resolvers(config.dns), _pool(config.default_address_pool)]


def _forwarding(config: EngineConfig) -> list[Finding]:
    try:
        blocked = hindrances(config, with_ipv6=True)
    except NetlinkError as error:
        return [Finding("forwarding", True, f"not looked at, only root sees rules ({error})", required=False)]
    legacy = "; rules of iptables-legacy are not looked at" if hostrules.has_legacy() else ""
    free = f"no rule of others drops what containers send{legacy}"
    return blocked or [Finding("forwarding", True, free, required=False)]


def hindrances(config: EngineConfig, *, with_ipv6: bool) -> list[Finding]:
    """What stands in the way of a running engine's containers."""
    walls = hostrules.walls(config.bridge, config.nft_table)
    return [_blocked(wall, config.bridge) for wall in walls if with_ipv6 or wall.family != "ip6"]


def _blocked(wall: hostrules.Wall, bridges: str) -> Finding:
    setting = f"bridge/bridge-nf-call-{'ip6tables' if wall.family == 'ip6' else 'iptables'}"
    between = ", and between containers of one network" if sysctl.read(setting) == "1" else ""
    return Finding(
        "forwarding",
        False,
        f"{wall}, not of this engine, drops what goes from containers to other hosts and back{between}",
        "; ".join(wall.opened_for(bridges)),
        required=False,
    )


def _ipv6() -> Finding:
    there = ipv6.available()
    detail = "there: networks made with --ipv6 have it" if there else "none: networks have IPv4 alone"
    return Finding("ipv6", there, detail, "start the kernel without ipv6.disable=1", required=False)


def _resolvers(given: Sequence[str]) -> Finding:
    servers = given or upstream.host_servers()
    detail = ", ".join(servers) or "none: containers find each other's names, and none of the world's"
    return Finding("resolvers", bool(servers), detail, "name one in /etc/resolv.conf, or use --dns", required=False)


def _pool(text: str) -> Finding:
    with Netlink() as netlink:
        used = links.used_subnets(netlink)
    pools = addresses.parse_pools(text)
    free = sum(addresses.is_free(one, used) for pool, size in pools for one in pool.subnets(new_prefix=size))
    names = ", ".join(str(pool) for pool, _ in pools)
    return Finding(
        "addresses",
        free > 0,
        f"{free} free subnets in {names}",
        "remove unused networks, or use --default-address-pool",
        required=False,
    )
