"""Build arguments that mean something to the builder itself, whether or not a Dockerfile declares them.

https://docs.docker.com/reference/dockerfile/#buildkit-built-in-build-args
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.build import checks, sharedcache

KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
CACHE_MOUNTS = "BUILDKIT_CACHE_MOUNT_NS"
"""Cache mounts of one such name are not those of another."""
EPOCH = "SOURCE_DATE_EPOCH"
# What the others ask for is not asked of us, or is so in any case.
_HEEDED = ("BUILDKIT_BUILD_NAME", "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SYNTAX")
NAMES = frozenset({KEEP_GIT_DIR, HOSTNAME, CACHE_MOUNTS, EPOCH, checks.ASKED_BY, sharedcache.ASKED_BY, *_HEEDED})


def is_true(build_args: Mapping[str, str], name: str) -> bool:
    """As Go's strconv.ParseBool has it; anything else is no."""
    return build_args.get(name) in ("1", "t", "T", "TRUE", "true", "True")
