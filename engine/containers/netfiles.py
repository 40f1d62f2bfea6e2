"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from engine.containers.hostconfig import HostConfig
from engine.containers.model import Container, ContainerPaths
from engine.errors import InvalidInput

_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_FALLBACK = ("8.8.8.8", "8.8.4.4")


def extra_hosts(entries: Sequence[str], gateway: str = "") -> list[tuple[str, str]]:
    """(name, address) of `name:address` or `name=address`; `host-gateway` is the host. Raises InvalidInput."""
    pairs = []
    for entry in entries:
        name, _, address = entry.partition("=" if "=" in entry else ":")
        address = address.strip("[]")
        if address == "host-gateway":
            address = gateway or "127.0.0.1"
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidInput(f"invalid IP address in add-host: {entry!r}") from None
        if _HOST_NAME.fullmatch(name) is None:
            raise InvalidInput(f"invalid name in add-host: {entry!r}")
        pairs.append((name, address))
    return pairs


def hosts(extra: Sequence[tuple[str, str]], addresses: Sequence[str] = (), hostname: str = "", domain: str = "") -> str:
    """The file's text."""
    lines = [f"{address}\t{name}" for name, address in extra]
    short = hostname.partition(".")[0]
    full = f"{hostname}.{domain} {hostname}" if domain else f"{hostname} {short}" if short != hostname else hostname
    lines += [f"{address}\t{full}" for address in addresses]
    return _LOCAL + "".join(f"{line}\n" for line in lines)


def resolv(host_config: HostConfig, servers: Sequence[str], host_file: str, *, own: str | None = None) -> str:
    """The file's text: what the user said, then `servers`, then what the host uses.

    Resolvers on the host's own loopback can't be reached from a container and are left out. With `own`, the
    engine's resolver in the container, all those stand behind it; names without a dot are asked of it at once.
    """
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in host_file.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) > 1 and words[0] in found:
            found[words[0]] += words[1:]
    reachable = [server for server in found["nameserver"] if not _loopback(server)]
    chosen = (own,) if own else host_config.dns or servers or reachable or _FALLBACK
    search = host_config.dns_search or found["search"]
    options = host_config.dns_options or found["options"]
    if own and not any(option.startswith("ndots:") for option in options):
        options = [*options, "ndots:0"]
    lines = [f"nameserver {server}" for server in chosen]
    if search and search != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    text = "".join(f"{line}\n" for line in lines)
    if "\0" in text or "\r" in text or text.count("\n") != len(lines):
        raise InvalidInput("invalid DNS settings: line breaks are not allowed in them")
    return text


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


def write(path: Path, text: str, owner: int = 0) -> None:
    """In place: the file may be mounted into a container already, which a rename would not reach."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, 0o644)
        if owner:
            os.fchown(fd, owner, owner)
    finally:
        os.close(fd)


def prepare(
    container: Container,
    paths: ContainerPaths,
    servers: Sequence[str],
    *,
    host_network: bool,
    own: str | None = None,
) -> None:
    """All three, before the network is known. `servers` and `own` as for `resolv`. Raises InvalidInput."""
    owner, host_config = container.id_shift, container.host_config
    if host_network:
        text = _read("/etc/hosts") or _LOCAL
        text += "".join(f"{a}\t{n}\n" for n, a in extra_hosts(host_config.extra_hosts))
        write(paths.hosts, text, owner)
    else:
        write(paths.hosts, hosts(extra_hosts(host_config.extra_hosts)), owner)
    write(paths.hostname, container.hostname + "\n", owner)
    write(paths.resolv, resolv_of_host(host_config, servers, host_network=host_network, own=own), owner)


def resolv_of_host(
    host_config: HostConfig, servers: Sequence[str], *, host_network: bool, own: str | None = None
) -> str:
    """With the host's network the host's own file is right as it is, loopback resolvers included."""
    host_file = _read("/etc/resolv.conf")
    asked = host_config.dns or host_config.dns_search or host_config.dns_options
    if host_network and host_file and not asked:
        return host_file
    return resolv(host_config, servers, host_file, own=own)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
