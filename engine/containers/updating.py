"""`docker rename` and `docker update`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.containers import links, names, resources, validation
from engine.containers.hostconfig import Limits, RestartPolicy
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import InvalidInput

_CHANGEABLE = [
    field.name
    for field in msgspec.structs.fields(Limits)
    if field.name not in ("cgroup_parent", "devices", "device_cgroup_rules", "device_requests", "ulimits")
]
"""What a running container has only by its birth stays as it is."""


async def rename(room: Room, container: Container, name: str) -> None:
    """Raises Conflict when the name is taken, InvalidInput when it is the same or no name."""
    wanted = names.validate(name)
    async with room.registry.live(container).lock:
        old = container.name
        if wanted == old:
            raise InvalidInput("Renaming a container with the same name as its current name")
        room.registry.free_name(wanted, container.id)
        container.name = wanted
        for endpoint in container.network_settings.networks.values():
            endpoint.dns_names = [wanted if name == old else name for name in endpoint.dns_names]
        await room.networks.rename(container.id, old, wanted)
        room.registry.save(container)
        room.registry.give_up_name(old, container.id)
    for other in room.registry.linking:
        now = links.renamed(other.host_config.links, old, wanted)
        if now != other.host_config.links:
            other.host_config.links = now
            room.registry.save(other)
    room.tell(container, "rename", {"oldName": f"/{old}"})


async def update(room: Room, container: Container, limits: Limits, policy: RestartPolicy | None) -> Sequence[str]:
    """All or nothing: a limit that the kernel refuses leaves the record as it was. Returns warnings."""
    host_config = container.host_config
    warnings = resources.discard(limits)
    _agree(limits, host_config)
    changed = msgspec.structs.replace(host_config)
    for name in _CHANGEABLE:
        value = getattr(limits, name)
        if value not in (None, 0, "", []):
            setattr(changed, name, value)
    if limits.pids_limit is not None:
        # All of 0 and below mean "no limit", and the kernel must be told so.
        changed.pids_limit = max(0, limits.pids_limit)
    if limits.memory and not limits.memory_swap and 0 < changed.memory_swap < changed.memory:
        raise InvalidInput(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    resources.validate(changed)
    if policy is not None and policy.name:
        if host_config.auto_remove and policy.name != "no":
            raise InvalidInput("Restart policy cannot be updated because AutoRemove is enabled for the container")
        validation.restart_policy(policy)
        changed.restart_policy = policy
    async with room.registry.live(container).lock:
        if container.state.alive:
            await room.launcher.update(container.id, resources.resources(changed))
        container.host_config = changed
        room.registry.save(container)
    room.tell(container, "update")
    return warnings


def _agree(limits: Limits, had: Limits) -> None:
    """Docker's words for the two ways of giving a share of the processors."""
    for name, field in (("CPU Period", "cpu_period"), ("CPU Quota", "cpu_quota")):
        if limits.nano_cpus > 0 and getattr(had, field) > 0:
            raise InvalidInput(f"Conflicting options: Nano CPUs cannot be updated as {name} has already been set")
        if getattr(limits, field) > 0 and had.nano_cpus > 0:
            raise InvalidInput(f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
