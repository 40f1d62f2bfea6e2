"""Descriptors: typed, sized, content-addressed links (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import platform as _platform

import msgspec

from engine.errors import InvalidInput
from engine.images import digest as digests

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON of the wanted kind."""

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that names an image in an index."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYER_TYPES = frozenset({OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD})
ACCEPTED_MANIFESTS = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
"""What to put in an Accept header."""

_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "amd64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", None),
    "i686": ("386", None),
    "ppc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
    "riscv64": ("riscv64", None),
}
_NORMAL = {
    ("x86_64", None): ("amd64", None),
    ("x86-64", None): ("amd64", None),
    ("aarch64", None): ("arm64", None),
    ("arm64", "v8"): ("arm64", None),
    ("armhf", None): ("arm", "v7"),
    ("armel", None): ("arm", "v6"),
    ("arm", None): ("arm", "v7"),
    ("i386", None): ("386", None),
}

_KNOWN_ALONE = frozenset(
    (
        *_ARCHITECTURES,
        *(name for name, _ in _NORMAL),
        *("386", "arm", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "riscv", "sparc64", "wasm"),
    )
)
"""What may stand without an operating system before it."""


class Platform(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """What an image runs on (OCI image-spec, image-index.md)."""

    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`OS/ARCH[/VARIANT]`, `ARCH` or `OS` as `--platform` takes it. Raises InvalidInput."""
        parts = text.lower().split("/")
        if len(parts) > 3 or not all(part and part.replace("-", "").replace("_", "").isalnum() for part in parts):
            raise InvalidInput(f"invalid platform {text[:100]!r}: write it as os/arch or os/arch/variant")
        if len(parts) == 1:
            host = cls.host()
            if parts[0] in ("linux", "windows", "darwin", "freebsd"):
                return cls(host.architecture, parts[0], host.variant)
            if parts[0] not in _KNOWN_ALONE:
                raise InvalidInput(
                    f"invalid platform {text!r}: unknown operating system or architecture: invalid argument"
                )
            parts = ["linux", parts[0]]
        return cls(parts[1], parts[0], parts[2] if len(parts) == 3 else None).normal()

    @classmethod
    def host(cls) -> Platform:
        """The platform that this machine runs natively."""
        machine = _platform.machine().lower()
        architecture, variant = _ARCHITECTURES.get(machine, (machine, None))
        return cls(architecture, "linux", variant).normal()

    def normal(self) -> Platform:
        """With the names that registries use: x86_64 is amd64, arm64/v8 is arm64."""
        pair = (self.architecture, self.variant)
        architecture, variant = _NORMAL.get(
            pair, _NORMAL.get((self.architecture, None), pair) if not self.variant else pair
        )
        return Platform(architecture, self.os, variant, self.os_version, self.os_features)

    def runs(self, other: Platform) -> bool:
        """Whether a machine of this platform runs what was made for `other`."""
        mine, theirs = self.normal(), other.normal()
        if mine.os != theirs.os or mine.architecture != theirs.architecture:
            return False
        if mine.architecture == "arm" and mine.variant and theirs.variant:
            return theirs.variant <= mine.variant
        return theirs.variant in (None, mine.variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A link to a blob: what it is, what it hashes to, how many bytes it has."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    urls: tuple[str, ...] = ()
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        digests.validate(self.digest)
        if self.size < 0:
            raise InvalidInput(f"descriptor of {self.digest}: its size is negative")

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))
