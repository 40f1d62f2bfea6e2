"""Files that a stage wants to keep, copied out of its container."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from pipeline.plan.models import ContainerSpec
from pipeline.protocol import Artifact
from workers.engine import execute, explained
from workers.executors.base import StageFailed, Work

MAX_BYTES = 1 << 30
_MAX_FILES = 1000


def collect(work: Work, spec: ContainerSpec, container: str, folder: Path) -> tuple[Artifact, ...]:
    """Each path or folder that the globs find, as a tar archive in `folder`. What is not there is only said."""
    with work.phase("artifacts"), explained("artifacts"):
        found = _find(work, spec, container)
        return tuple(_copy(work, container, path, folder) for path in found)


def _find(work: Work, spec: ContainerSpec, container: str) -> list[str]:
    """Absolute paths. The container's own shell expands the globs, in the working folder."""
    patterns = " ".join(_quoted(pattern) for pattern in spec.artifacts)
    script = (
        f'for f in {patterns}; do [ -e "$f" ] || continue; case "$f" in /*) printf "%s\\n" "$f";;'
        ' *) printf "%s/%s\\n" "$PWD" "$f";; esac; done'
    )
    output = b"".join(
        news[1]
        for news in execute(work.engine, container, ["/bin/sh", "-c", script], workdir=spec.workdir or spec.source)
        if not isinstance(news, int) and news[0] == "stdout"
    )
    lines = output.decode(errors="replace").splitlines()
    if not lines:
        work.log.say(f"no artifacts: nothing is called {', '.join(spec.artifacts)}")
    return list(dict.fromkeys(lines))[:_MAX_FILES]


def _quoted(pattern: str) -> str:
    """Shell-safe, with its wildcards alive."""
    return "".join(char if char in "*?[]" else shlex.quote(char) for char in pattern)


def _copy(work: Work, container: str, path: str, folder: Path) -> Artifact:
    chunks, _ = work.engine.api.get_archive(container, path)
    name = path.rstrip("/").rpartition("/")[2]
    place = folder / f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{name[:100]}.tar"
    digest = hashlib.sha256()
    size = 0
    with place.open("wb") as file:
        for chunk in chunks:
            work.lease.check()
            size += len(chunk)
            if size > MAX_BYTES:
                raise StageFailed(f"artifact {path} is larger than {MAX_BYTES >> 30} GiB", retryable=False)
            digest.update(chunk)
            file.write(chunk)
    return Artifact(name=name, size=size, digest=f"sha256:{digest.hexdigest()}", path=str(place))
