"""Image references: `[DOMAIN/]PATH[:TAG][@DIGEST]`, normalised as Docker does.

The grammar is the one of the distribution project: https://github.com/distribution/reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import InvalidInput
from engine.images import digest as digests

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255

_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}\Z")
_BARE_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Reference:
    """Where an image is found: a repository and a tag, a digest, or both."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads what people type; `busybox` is `docker.io/library/busybox:latest`. Raises InvalidInput."""
        reference = cls._parse_name(text)
        if reference.tag is None and reference.digest is None:
            return reference.with_tag(DEFAULT_TAG)
        return reference

    @classmethod
    def parse_repository(cls, text: str) -> Reference:
        """Like `parse`, for a repository alone: no tag is added, and one that is there is refused."""
        reference = cls._parse_name(text)
        if reference.tag is not None or reference.digest is not None:
            raise InvalidInput(f"invalid repository {text[:200]!r}: give it without a tag or digest")
        return reference

    @classmethod
    def _parse_name(cls, text: str) -> Reference:
        if not text or len(text) > 1024:
            raise InvalidInput("invalid reference format")
        if _BARE_ID.match(text):
            raise InvalidInput(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        rest, at, digest = text.partition("@")
        if at:
            digests.validate(digest)
        name, tag = rest, None
        colon = rest.rfind(":")
        if colon > rest.rfind("/"):
            name, tag = rest[:colon], rest[colon + 1 :]
            if not _TAG.match(tag):
                raise InvalidInput(f"invalid reference format: {text[:200]!r} has an invalid tag")
        domain, path = _split_domain(name)
        if path != path.lower() and _PATH.match(path.lower()):
            raise InvalidInput(f"invalid reference format: repository name ({path[:200]}) must be lowercase")
        if not _PATH.match(path) or not _DOMAIN.match(domain):
            raise InvalidInput(f"invalid reference format: {text[:200]!r}")
        if len(domain) + 1 + len(path) > _MAX_NAME:
            raise InvalidInput(f"repository name must not be more than {_MAX_NAME} characters")
        return cls(domain, path, tag, digest if at else None)

    @property
    def repository(self) -> str:
        """`docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """`busybox`: the repository as people write it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    @property
    def familiar(self) -> str:
        """`busybox:latest`: what lists show and people type."""
        return self.familiar_repository + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return tag + (f"@{self.digest}" if self.digest is not None else "")

    def with_tag(self, tag: str) -> Reference:
        """This repository at `tag`, without a digest."""
        if not _TAG.match(tag):
            raise InvalidInput(f"invalid reference format: invalid tag {tag[:200]!r}")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Reference:
        """This repository at `digest`, without a tag."""
        return Reference(self.domain, self.path, None, digests.validate(digest))

    def __str__(self) -> str:
        return self.repository + self._suffix


def names_one(name: str) -> bool:
    """Whether there is a tag or a digest; without one a name stands for all images of its repository."""
    return "@" in name or ":" in name.rpartition("/")[2]


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # A first part is a host only when it can't be part of a Docker Hub path: that is what keeps
    # `user/name` short.
    is_host = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_host else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path
