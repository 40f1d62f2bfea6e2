"""`--init`: a small program as process 1 that passes signals on and reaps what is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.errors import InvalidInput

_NAMES = ("docker-init", "tini-static", "catatonit")
_ELSEWHERE = "/usr/libexec/docker:/usr/lib/docker:/usr/libexec/podman:/usr/bin:/usr/local/bin"


def find() -> Path:
    """The host's. All of these are linked statically, so that they run in any image. Raises InvalidInput."""
    for name in _NAMES:
        found = shutil.which(name) or shutil.which(name, path=_ELSEWHERE)
        if found:
            return Path(found).resolve()
    raise InvalidInput("--init needs an init on the host and there is none: install tini (tini-static) or catatonit")
