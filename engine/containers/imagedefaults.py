"""What an image says of its containers, under what the user says. Pure."""

from __future__ import annotations

import posixpath

import msgspec

from engine.containers.model import ContainerConfig, HealthConfig
from engine.errors import InvalidInput
from engine.images import config as image_config


def apply(config: ContainerConfig, image: image_config.ContainerConfig) -> ContainerConfig:
    """A copy of `config` with the image's values where the user gave none. Docker's rules.

    An own entrypoint also drops the image's command. Raises InvalidInput when nothing is left to run.
    """
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidInput(f"the working directory {config.working_dir!r} is invalid, it needs to be an absolute path")
    merged = msgspec.structs.replace(config)
    merged.user = config.user or image.user
    merged.working_dir = config.working_dir or image.working_dir or "/"
    merged.working_dir = "/" + posixpath.normpath(f"/{merged.working_dir}").lstrip("/")
    own = {entry.partition("=")[0] for entry in config.env}
    merged.env = [*config.env, *(entry for entry in image.env if entry.partition("=")[0] not in own)]
    merged.exposed_ports = {**image.exposed_ports, **config.exposed_ports}
    merged.volumes = {**image.volumes, **config.volumes}
    merged.labels = {**image.labels, **config.labels}
    merged.stop_signal = config.stop_signal or image.stop_signal or ""
    merged.stop_timeout = image.stop_timeout if config.stop_timeout is None else config.stop_timeout
    if config.shell is None and image.shell is not None:
        merged.shell = list(image.shell)
    if not config.entrypoint:
        if not config.cmd and image.cmd is not None:
            merged.cmd = list(image.cmd)
        if config.entrypoint is None and image.entrypoint is not None:
            merged.entrypoint = list(image.entrypoint)
    if merged.entrypoint == [""]:
        merged.entrypoint = None
    if not (merged.entrypoint or merged.cmd):
        raise InvalidInput("no command specified")
    merged.healthcheck = _health(config.healthcheck, image.healthcheck)
    return merged


def _health(own: HealthConfig | None, image: image_config.Healthcheck | None) -> HealthConfig | None:
    if image is None:
        return own
    own = own or HealthConfig()
    if own.test == ["NONE"]:
        return own
    return HealthConfig(
        test=own.test or list(image.test),
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
    )


def argv(config: ContainerConfig) -> list[str]:
    """What is executed."""
    return [*(config.entrypoint or []), *(config.cmd or [])]
