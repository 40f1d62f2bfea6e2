"""How an image was made, as `docker history` shows it."""

from __future__ import annotations

import calendar
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.images.image import Image
    from engine.images.store import ImageStore


def history(store: ImageStore, image: Image) -> list[dict[str, Any]]:
    """Docker's JSON, the youngest step first. Only steps whose image is here have an ID and tags."""
    steps: list[dict[str, Any]] = []
    chains = iter(image.config.chain_ids)
    for step in image.config.history:
        chain = None if step.empty_layer else next(chains, None)
        layer = store.catalog.layer(chain) if chain else None
        steps.append(
            {
                "Id": "<missing>",
                "Created": unix_time(step.created),
                "CreatedBy": step.created_by,
                "Tags": None,
                "Size": layer.size if layer else 0,
                "Comment": step.comment,
            }
        )
    steps.reverse()
    at: str | None = image.id
    for step_line in steps:
        row = store.catalog.image(at) if at else None
        if row is None:
            break
        step_line["Id"] = row.id
        step_line["Tags"] = list(store.get(row.id).tags) or None
        at = row.parent
    return steps


def unix_time(rfc3339: str | None) -> int:
    """Whole seconds since 1970; 0 for no time and for what is none."""
    if not rfc3339:
        return 0
    try:
        base = calendar.timegm(time.strptime(rfc3339[:19], "%Y-%m-%dT%H:%M:%S"))
        zone = rfc3339[19:].lstrip(".0123456789")
        if zone in ("", "Z", "z"):
            return base
        sign = -1 if zone[0] == "-" else 1
        return base - sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    except (ValueError, IndexError):
        return 0
