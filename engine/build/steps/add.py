"""ADD's own part: local archives are unpacked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, cast

from engine.build.selection import Picked
from engine.build.spool import SpooledContext, spool
from engine.build.steps.copy import Source
from engine.build.trees import FILE, FOLDER, Entry
from engine.images.compression import beginning, decompressed, sniff
from engine.images.tarstream import is_header
from engine.images.unpack import Limits

_HEAD = 512


def unpacked(source: Source, scratch: Path) -> tuple[Source, SpooledContext] | None:
    """An archive's content as a source of its own; None where the file is no archive.

    An archive is what begins as one; the caller closes the spool. Raises InvalidInput where it is damaged further on.
    """
    if source.picked.entry.kind != FILE:
        return None
    head = source.tree.read(source.picked.path, _HEAD)
    if sniff(head) == "none" and not is_header(head):
        return None
    copy = os.open(scratch, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with os.fdopen(copy, "r+b") as file:
        source.tree.copy_to(source.picked.path, file.fileno())
        file.seek(0)
        if not is_header(beginning(cast(BinaryIO, file), _HEAD)):
            return None
        file.seek(0)
        limit = Limits().most(source.picked.entry.size)  # what a layer may cost, an archive may
        content = spool(decompressed(cast(BinaryIO, file)), scratch, archive=True, limit=limit)
    tree = content.tree()
    root = Picked("", "", Entry(FOLDER, 0o755, 0, 0, 0, 0))
    return Source(tree, root, unpacked=True, implied=content.implied), content
