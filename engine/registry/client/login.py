"""`docker login`: whether a registry knows a user."""

from __future__ import annotations

from engine.errors import InvalidInput
from engine.images.reference import DEFAULT_DOMAIN
from engine.registry.client.auth import Auth
from engine.registry.client.transport import RegistryClient

_HUB_NAMES = ("index.docker.io", "docker.io", "registry-1.docker.io")


def domain_of(address: str) -> str:
    """The registry that a client's configuration names: a host, or the address of old."""
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB_NAMES or not host else host


async def login(client: RegistryClient, address: str, auth: Auth) -> None:
    """Asks the registry at `address` for an answer to this user. Raises Unauthorized, Forbidden, Unavailable."""
    if not auth.username and not auth.identity_token:
        raise InvalidInput("cannot log in without a username")
    domain = domain_of(address)
    endpoint = await client.endpoint(domain)
    await client.fetch(endpoint, "GET", endpoint.base / "v2/", what=f"login at {domain}", auth=auth)
