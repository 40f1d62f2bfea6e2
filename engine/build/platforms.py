"""The ARGs that every build has without declaring them.

https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope and
#predefined-args
"""

from __future__ import annotations

from engine.images.descriptor import Platform

# Given to RUN where --build-arg names them, declared or not; kept out of history and of cache keys.
PROXY_ARGS = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


def automatic_args(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """BUILDPLATFORM, TARGETARCH and their like, in scope before the first FROM."""
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant or ""
        found[f"{prefix}OSVERSION"] = platform.os_version or ""
    return found
