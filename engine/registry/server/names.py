"""The grammar of names that reach us in a URL (OCI distribution-spec, "Pulling manifests")."""

from __future__ import annotations

import re

from engine.images import digest as digests
from engine.registry.server import errors

MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")


def repository(text: str) -> str:
    """`text` when it names a repository; raises NAME_INVALID."""
    if len(text) > MAX_NAME or not _NAME.match(text):
        raise errors.name_invalid(text)
    return text


def is_repository(text: str) -> bool:
    return len(text) <= MAX_NAME and _NAME.match(text) is not None


def tag(text: str) -> str:
    """`text` when it can be a tag; raises TAG_INVALID."""
    if not _TAG.match(text):
        raise errors.tag_invalid(text)
    return text


def digest(text: str) -> str:
    """`text` when it is a digest that we can check; raises DIGEST_INVALID."""
    if not digests.is_digest(text):
        raise errors.digest_invalid(f"{text[:200]!r} is not a sha256 or sha512 digest")
    return text


def upload(text: str) -> str:
    """`text` when it can be the id of an upload; raises BLOB_UPLOAD_UNKNOWN."""
    if not _UPLOAD.match(text):
        raise errors.upload_unknown()
    return text
