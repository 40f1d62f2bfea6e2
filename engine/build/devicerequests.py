"""The options of `RUN --device`.

https://docs.docker.com/reference/dockerfile/#run---device
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.build.csvfields import read_fields
from engine.build.mounts import boolean
from engine.build.problems import DockerfileError, did_you_mean


@dataclass(frozen=True)
class DeviceRequest:
    """A CDI device, by its qualified name or its class."""

    name: str
    required: bool = False


def parse_device(text: str) -> DeviceRequest:
    """Raises DockerfileError."""
    name = ""
    required = False
    for field in read_fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            required = boolean(key, value) if equals else True
        elif key == "name" and equals:
            if name:
                raise DockerfileError(f"device name already set to {name}")
            name = value
        elif not name:
            name = field
        elif not equals:
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
        else:
            raise DockerfileError(f"unexpected key '{key}' in '{field}'{did_you_mean(key, ('name', 'required'))}")
    return DeviceRequest(name, required)
