"""The distribution client: pull and push for every registry that follows the specification."""

from engine.registry.client.auth import Auth
from engine.registry.client.describe import Described, describe
from engine.registry.client.login import domain_of, login
from engine.registry.client.progress import Progress, ProgressEvent
from engine.registry.client.pull import pull
from engine.registry.client.push import Pushed, push
from engine.registry.client.search import Found, search
from engine.registry.client.tags import list_tags
from engine.registry.client.transport import Patience, RegistryClient

__all__ = [
    "Auth",
    "Described",
    "Found",
    "Patience",
    "Progress",
    "ProgressEvent",
    "Pushed",
    "RegistryClient",
    "describe",
    "domain_of",
    "list_tags",
    "login",
    "pull",
    "push",
    "search",
]
