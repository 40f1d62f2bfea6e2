"""`docker commit`: a container's files become an image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.containers import stopping
from engine.containers.model import Container, ContainerConfig, to_json
from engine.containers.room import Room
from engine.errors import EngineError, SystemFailure
from engine.images import snapshot
from engine.images.config import ContainerConfig as ImageContainerConfig
from engine.images.config import container_config
from engine.images.reference import Reference

if TYPE_CHECKING:
    from engine.images.image import Image

_OF_THE_CONTAINER = (
    *("Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"),
    *("Image", "NetworkDisabled", "MacAddress", "ArgsEscaped"),
)


async def commit(
    room: Room,
    container: Container,
    *,
    reference: str | None,
    changes: Sequence[str],
    author: str,
    comment: str,
    pause: bool,
    config: ContainerConfig | None,
) -> Image:
    """A running container is paused meanwhile, unless `pause` is False. Of one that has ended nothing is copied."""
    name = Reference.parse(reference) if reference else None
    live = room.registry.live(container)
    async with live.lock:
        frozen = pause and container.state.status == "running"
        if frozen:
            await stopping.freeze(room, container)
        try:
            parent = await asyncio.to_thread(room.images.get, container.image)
            image = await asyncio.to_thread(
                snapshot.commit,
                room.images,
                upper=room.registry.paths(container).upper,
                parent=parent,
                config=_image_config(container, config),
                changes=changes,
                author=author,
                comment=comment,
                created_by=" ".join(container.config.cmd or []),
                id_shift=container.id_shift,
                lend=not container.state.alive,
                ref=name,
            )
        except OSError as error:
            raise SystemFailure(f"commit failed: {error}", error.errno) from None
        finally:
            if frozen:
                await _thaw(room, container)
    known = name.familiar if name else ""
    if name:
        room.events.of_image("tag", image, known)
    room.tell(container, "commit", {"comment": comment, "imageID": image.id, "imageRef": known})
    return image


async def _thaw(room: Room, container: Container) -> None:
    try:
        await stopping.unfreeze(room, container)
    except EngineError:
        if container.state.alive:
            raise


def _image_config(container: Container, config: ContainerConfig | None) -> ImageContainerConfig:
    """What containers of the new image start with: as this one, but for what is this one's own.

    A configuration that comes with the request goes on top, as in Docker.
    """
    own = container.config
    merged = {**to_json(own), **{key: value for key, value in (to_json(config) if config else {}).items() if value}}
    for name in _OF_THE_CONTAINER:
        merged.pop(name, None)
    return container_config({key: value for key, value in merged.items() if value not in (None, "", [], {})})
