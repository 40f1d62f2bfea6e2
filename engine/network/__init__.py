"""Bridges, veth pairs, addresses, published ports and names between containers."""
