"""What a network's `com.docker.network.*` options mean."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import InvalidInput

BRIDGE_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"


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
    return options.get(_MASQUERADE, "true") != "false"


def bridge_name(options: Mapping[str, str], default: str) -> str:
    """The bridge's interface name. Raises InvalidInput for one that the kernel would refuse."""
    name = options.get(BRIDGE_NAME) or default
    if not 0 < len(name) <= 15 or any(char in "/ \t\n:" for char in name) or name in {".", ".."}:
        raise InvalidInput(f'invalid bridge name "{name}": at most 15 characters, no slash, colon or space')
    return name
