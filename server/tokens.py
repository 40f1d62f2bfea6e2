"""The token that workers show: from the settings, else made once and kept in the data folder."""

from __future__ import annotations

import os
import secrets

from pipeline.settings import Settings


def worker_token(settings: Settings) -> str:
    """The token. The file that it is kept in is readable by its owner only."""
    known = settings.read_worker_token()
    if known:
        return known
    settings.data.mkdir(parents=True, exist_ok=True)
    path = settings.data / "worker-token"
    token = secrets.token_urlsafe(32)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token
