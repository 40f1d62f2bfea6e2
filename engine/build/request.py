"""What a build is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.build.context import Context
from engine.containers.hostconfig import Limits

HOST_NETWORK, INSECURE = "network.host", "security.insecure"
ENTITLEMENTS = frozenset({HOST_NETWORK, INSECURE})


@dataclass(frozen=True)
class BuildRequest:
    """One build. Exactly what `docker build` can say, by the names that its API has.

    `context` is a folder, a Context (see `receive`), or None for a Dockerfile without files. `dockerfile` is
    its path in the context; `dockerfile_content` replaces it (`-f -`). `secrets` maps ids to values, `ssh`
    ids to agent sockets. `cache_from` names images and build caches to reuse steps of, `cache_to` build caches to
    write.
    """

    context: Path | Context | None = None
    dockerfile: str = "Dockerfile"
    dockerfile_content: bytes | None = None
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    no_cache: bool = False
    pull: bool = False
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 64 << 20
    limits: Limits = field(default_factory=Limits)  # of each step
    security_opt: tuple[str, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ssh: Mapping[str, Path] = field(default_factory=dict)
    entitlements: frozenset[str] = frozenset()  # of ENTITLEMENTS: what a Dockerfile can't ask for by itself
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
