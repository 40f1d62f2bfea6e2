"""The rules, apart from everything else."""

from __future__ import annotations

from engine.registry.server.access.accounts import User
from engine.registry.server.guard import Action

ACTIONS: tuple[Action, ...] = ("pull", "push", "delete")


def group_of(repository: str) -> str:
    """Whose it is."""
    return repository.partition("/")[0]


def allowed(name: str, user: User | None, repository: str, *, public: bool) -> frozenset[Action]:
    """What the user of that name may do; None is everybody."""
    if user is not None and (user.admin or group_of(repository) in (name, *user.groups)):
        return frozenset(ACTIONS)
    return frozenset({"pull"}) if public else frozenset()
