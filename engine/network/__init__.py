"""Bridges, veth pairs, addresses, published ports and names between containers."""

from engine.network.model import Endpoint, Network, PortBinding, PortMapping
from engine.network.networks import Networks
from engine.network.placing import Pool, Wishes

__all__ = ["Endpoint", "Network", "Networks", "Pool", "PortBinding", "PortMapping", "Wishes"]
