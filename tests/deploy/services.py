"""Releases of a small web service: busybox's httpd, that answers with one word."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Any

from deploy.releases import Target
from pipeline.services import NamedService
from scripts.baseimages import BUSYBOX

PORT = 8000
_SERVE = """
mkdir -p /tmp/www
{before}
httpd -p 8000 -h /tmp/www
trap 'exit 0' TERM
echo "$SHIPWAY_RELEASE serves"
sleep 1000 & wait
"""
_GREET = "echo $SHIPWAY_RELEASE > /tmp/www/index.html"


def published_port() -> int:
    """A port that nobody listens at, and that the kernel gives to no client of its own accord."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def release(number: int, *, before: str = _GREET, **service: Any) -> Target:
    """The release web-<number>, which answers `web-<number>`; `before` is done in the container at its start."""
    keys: dict[str, Any] = {
        "name": "web",
        "port": PORT,
        "command": ["/bin/sh", "-c", _SERVE.format(before=before)],
        "health": {"http": "/", "interval": "50ms", "timeout": "1s", "retries": 2, "start_period": "400ms"},
        "rollout": {"drain": "2s"},
        **service,
    }
    spec = NamedService.model_validate(keys)
    return Target(service=spec, release=f"{spec.name}-{number}", image=BUSYBOX, digest="")
