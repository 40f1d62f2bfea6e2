"""Bridges, veth pairs, addresses, published ports and names between containers."""

from engine.network.model import Endpoint, Network, PortBinding, PortMapping
from engine.network.networks import Networks

__all__ = ["Endpoint", "Network", "Networks", "PortBinding", "PortMapping"]
