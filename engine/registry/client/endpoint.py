"""Where a registry is, and how safely it must be spoken to."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from engine.errors import Forbidden, InvalidInput

_HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True)
class Endpoint:
    """One way to a registry: an origin, and the TLS settings for it (False: any certificate will do)."""

    domain: str
    base: URL
    tls: ssl.SSLContext | bool = True


def host_of(domain: str) -> str:
    """The host that answers for a reference's domain."""
    return _HUB_HOST if domain == _HUB else domain


def is_loopback(host: str) -> bool:
    """Whether `host` (no port) can only be this machine, without asking a resolver."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_reach(target: URL, registry: URL) -> None:
    """A registry must not make us ask things of this machine or of its cloud's metadata. Raises Forbidden."""
    host = target.host or ""
    if is_loopback(host) and not is_loopback(registry.host or ""):
        raise Forbidden(f"{registry.authority} points to {target.authority}, which is this machine: refused")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if address.is_link_local or address.is_unspecified or address.is_multicast:
        raise Forbidden(f"{registry.authority} points to {target.authority}: refused")


def is_insecure(domain: str, insecure: tuple[str, ...]) -> bool:
    """Whether `domain` (HOST[:PORT]) is named in `insecure`: as it stands, by host, or by a CIDR block."""
    host = URL(f"//{domain}").host or domain
    for entry in insecure:
        if entry in (domain, host):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry):
                return True
        except ValueError:
            continue
    return False


def candidates(domain: str, insecure: tuple[str, ...], tls: ssl.SSLContext | bool) -> tuple[Endpoint, ...]:
    """The ways to try, in order. Plain HTTP is among them only for loopback and for what was named insecure."""
    host = host_of(domain)
    secure = Endpoint(domain, URL(f"https://{host}"), tls)
    plain = Endpoint(domain, URL(f"http://{host}"))
    if is_loopback(secure.base.host or ""):
        return plain, Endpoint(domain, secure.base, tls=False if tls is True else tls)
    if is_insecure(domain, insecure):
        return Endpoint(domain, secure.base, tls=False), plain
    return (secure,)


def from_mirror(url: str, insecure: tuple[str, ...], tls: ssl.SSLContext | bool) -> Endpoint:
    """A mirror as `--registry-mirror` names it. Raises InvalidInput."""
    base = URL(url)
    if base.scheme not in ("http", "https") or not base.host or base.user or base.query_string:
        raise InvalidInput(f"invalid mirror {url!r}: write it as https://host[:port]")
    domain = base.authority
    safe = is_loopback(base.host) or is_insecure(domain, insecure)
    if base.scheme == "http" and not safe:
        raise InvalidInput(f"mirror {url} speaks plain HTTP: use https, or name {domain} as insecure")
    return Endpoint(domain, base.origin(), False if safe else tls)


def tls_for(domain: str, ca: Path | None, certificates: Path) -> ssl.SSLContext | bool:
    """The context for a domain: its `certs.d` folder as Docker has it, and our own CA. True is the default."""
    folder = certificates / domain
    roots = sorted(folder.glob("*.crt")) if folder.is_dir() else []
    pairs = [(path, path.with_suffix(".key")) for path in sorted(folder.glob("*.cert"))] if folder.is_dir() else []
    if ca is None and not roots and not pairs:
        return True
    context = ssl.create_default_context()
    for path in (*roots, *((ca,) if ca is not None else ())):
        context.load_verify_locations(path)
    for certificate, key in pairs:
        context.load_cert_chain(certificate, key)
    return context
