"""What people see: a page for everything, one a run, one a service, and the streams that keep them true."""

from server.pages.routes import failed, routes

__all__ = ["failed", "routes"]
