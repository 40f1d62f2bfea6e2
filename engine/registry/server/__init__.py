"""The embedded registry: OCI distribution-spec 1.1 over plain files."""

from engine.registry.server.app import make_app, serve, start

__all__ = ["make_app", "serve", "start"]
