"""Image configs: what to run on which layers (OCI image-spec, config.md, with Docker's extensions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from engine.errors import InvalidInput
from engine.images import digest as digests
from engine.images.descriptor import MALFORMED, Platform

MAX_CONFIG_BYTES = 8 << 20


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Docker's HEALTHCHECK. Times are nanoseconds, 0 inherits.

    `test` is ["NONE"], ["CMD", ...] or ["CMD-SHELL", line].
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """The defaults that containers of an image start with. Change it with `msgspec.structs.replace`.

    `entrypoint` and `cmd` tell None (inherit) from () (none at all). `unknown` keeps the keys that we have no
    field for: they are written back as they were read.
    """

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False
    unknown: dict[str, Any] = {}


def _said(raw: dict[str, Any]) -> dict[str, Any]:
    """Without what Go writes as null: an image of no layers has no list of them."""
    return {key: value for key, value in raw.items() if value is not None}


class RootFS(msgspec.Struct, frozen=True):
    """The digests of the uncompressed layer tars, the lowest first."""

    diff_ids: tuple[str, ...] = ()
    type: str = "layers"


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step in the making of an image. `empty_layer` steps have no entry in `diff_ids`."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """An image's config blob; its digest is the image's ID. Change it with `msgspec.structs.replace`.

    `created` is RFC 3339. `unknown` keeps keys that we have no field for.
    """

    architecture: str = ""
    os: str = "linux"
    created: str | None = None
    author: str = ""
    config: ContainerConfig = ContainerConfig()
    rootfs: RootFS = RootFS()
    history: tuple[History, ...] = ()
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] | None = None
    unknown: dict[str, Any] = {}

    @classmethod
    def decode(cls, data: bytes) -> ImageConfig:
        """Reads a config blob. Raises InvalidInput when it is too big, malformed or has broken diff IDs."""
        if len(data) > MAX_CONFIG_BYTES:
            raise InvalidInput(f"image config of {len(data)} bytes: the most allowed is {MAX_CONFIG_BYTES}")
        try:
            raw = _said(msgspec.json.decode(data, type=dict[str, Any]))
            inner = raw.get("config")
            raw["config"] = container_config(inner if isinstance(inner, dict) else {})
            if isinstance(raw.get("rootfs"), dict):
                raw["rootfs"] = _said(raw["rootfs"])
            config = _convert(raw, cls)
        except MALFORMED as error:
            raise InvalidInput(f"malformed image config: {error}") from None
        if config.rootfs.type != "layers":
            raise InvalidInput(
                f"image config with a rootfs of type {config.rootfs.type[:50]!r}: only 'layers' is known"
            )
        for diff_id in config.rootfs.diff_ids:
            digests.validate(diff_id)
        return config

    def encode(self) -> bytes:
        """The bytes to store: the same value always gives the same bytes."""
        raw = _builtins(self)
        raw.setdefault("architecture", self.architecture)
        raw.setdefault("os", self.os)
        raw["config"] = container_config_json(self.config)
        raw["rootfs"] = {"type": "layers", "diff_ids": self.rootfs.diff_ids}
        return msgspec.json.encode(raw, order="sorted")

    @property
    def chain_ids(self) -> list[str]:
        """The chain ID of each layer, the lowest first."""
        return digests.chain_ids(self.rootfs.diff_ids)

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os or "linux", self.variant, self.os_version, self.os_features)

    def with_layers(self, diff_ids: Sequence[str], *history: History) -> ImageConfig:
        """This config with `diff_ids` added on top and `history` appended."""
        return msgspec.structs.replace(
            self,
            rootfs=RootFS((*self.rootfs.diff_ids, *diff_ids)),
            history=(*self.history, *history),
        )


def container_config(raw: dict[str, Any]) -> ContainerConfig:
    """From decoded JSON with Docker's key names. Raises InvalidInput."""
    raw = dict(raw)
    for key in ("Cmd", "Entrypoint", "Shell"):  # Docker reads a lone string as a list of one
        if isinstance(raw.get(key), str):
            raw[key] = [raw[key]]
    try:
        return _convert(raw, ContainerConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"malformed image config: {error}") from None


def container_config_json(config: ContainerConfig) -> dict[str, Any]:
    """To JSON-ready values with Docker's key names; empty ones are left out."""
    return _builtins(config)


_T = TypeVar("_T", bound=msgspec.Struct)


def _convert(raw: dict[str, Any], kind: type[_T]) -> _T:
    """Null is absent, as Go has it, and keys without a field go to `unknown`."""
    known = set(kind.__struct_encode_fields__) - {"unknown", "Unknown"}
    values = {key: value for key, value in raw.items() if key in known and value is not None}
    unknown = {key: value for key, value in raw.items() if key not in known and value is not None}
    struct = msgspec.convert(values, kind)
    return msgspec.structs.replace(struct, unknown=unknown) if unknown else struct


def _builtins(struct: ImageConfig | ContainerConfig) -> dict[str, Any]:
    raw: dict[str, Any] = msgspec.to_builtins(struct)
    raw.pop("unknown", None)
    raw.pop("Unknown", None)
    return {**struct.unknown, **raw}
