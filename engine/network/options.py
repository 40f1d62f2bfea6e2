"""What a network's `com.docker.network.*` options mean."""

from __future__ import annotations

from collections.abc import Mapping

from engine.config import DefaultBridge
from engine.errors import InvalidInput
from engine.network.addresses import parse_address

BRIDGE_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_ICC = "com.docker.network.bridge.enable_icc"
_HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
_INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
_INTERFACE = "com.docker.network.endpoint.ifname"
_GATEWAY_MODES = ("com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6")
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})


def of_default(bridge: DefaultBridge) -> dict[str, str]:
    """The default network's options, in the names that all networks' have. Raises InvalidInput."""
    options = {
        _ICC: str(bridge.icc).lower(),
        _MASQUERADE: str(bridge.masquerade).lower(),
        _HOST_BINDING: bridge.host_ip or "0.0.0.0",  # noqa: S104 - Docker's default
    }
    if bridge.mtu:
        options[_MTU] = str(bridge.mtu)
    check(options)
    return options


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidInput for the first option whose value makes no sense, or can't be had."""
    mtu_of(options)
    masquerades(options)
    neighbours_talk(options)
    host_binding(options)
    interface_prefix(options)
    for name in _GATEWAY_MODES:
        if options.get(name, "nat") not in {"", "nat"}:
            raise InvalidInput(f'{name} "{options[name]}" is not supported: this engine has nat alone')


def mtu_of(options: Mapping[str, str]) -> int | None:
    """The interfaces' MTU in bytes, None for the kernel's choice. Raises InvalidInput."""
    value = options.get(_MTU)
    if not value:
        return None
    if not value.isdigit() or not 68 <= int(value) <= 65535:
        raise InvalidInput(f'invalid {_MTU} "{value}": give a number of bytes, like 1400')
    return int(value)


def masquerades(options: Mapping[str, str]) -> bool:
    """Whether containers go out under the host's address."""
    return _flag(options, _MASQUERADE)


def neighbours_talk(options: Mapping[str, str]) -> bool:
    """Whether the network's containers reach each other, other than by published ports (Docker's "icc")."""
    return _flag(options, _ICC)


def host_binding(options: Mapping[str, str]) -> str:
    """The host's address on which ports are published that name none; empty for all. Raises InvalidInput."""
    value = options.get(_HOST_BINDING, "")
    if value:
        parse_address(value)
    return "" if value == "0.0.0.0" else value  # noqa: S104


def interface_prefix(options: Mapping[str, str]) -> str:
    """What interfaces in containers are called, but for their number. Raises InvalidInput."""
    return _interface_name(options.get(_INTERFACE_PREFIX) or "eth", _INTERFACE_PREFIX, longest=12)


def interface_name(options: Mapping[str, str]) -> str:
    """What an endpoint's interface is to be called; empty for the next free one. Raises InvalidInput."""
    value = options.get(_INTERFACE, "")
    return _interface_name(value, _INTERFACE, longest=15) if value else ""


def _interface_name(value: str, option: str, *, longest: int) -> str:
    if len(value) > longest or value in {"lo", ".", ".."} or any(char in "/ \t\n:%" for char in value):
        raise InvalidInput(f'invalid {option} "{value}": at most {longest} characters, no slash, colon or space')
    return value


def _flag(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "true").lower()
    if value not in _TRUE | _FALSE:
        raise InvalidInput(f'invalid {name} "{value}": give true or false')
    return value in _TRUE


def bridge_name(options: Mapping[str, str], default: str) -> str:
    """The bridge's interface name. Raises InvalidInput for one that the kernel would refuse."""
    name = options.get(BRIDGE_NAME) or default
    if not 0 < len(name) <= 15 or any(char in "/ \t\n:" for char in name) or name in {".", ".."}:
        raise InvalidInput(f'invalid bridge name "{name}": at most 15 characters, no slash, colon or space')
    return name
