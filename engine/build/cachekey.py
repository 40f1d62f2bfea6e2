"""What makes two steps the same step: the digests under which results are kept. Pure.

A key holds the layers below, the work as resolved, and digests of all that the work reads. It holds no time,
no path of this machine and nothing of the image's configuration that the work cannot see, so that stages,
builds and hosts share results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from engine.build.actions import ChangeConfig, CopyFiles, MakeFolder, RunCommand

_VERSION = 1


def run_key(parent: str, run: RunCommand, inputs: Sequence[str]) -> str:
    """`parent` is the chain ID below, `inputs` the digest or chain ID behind each mount, in order."""
    return _key(
        "run",
        parent,
        {
            "argv": run.argv,
            "env": run.env,
            "args": run.args,
            "user": run.user,
            "cwd": run.working_dir,
            "network": run.network,
            "privileged": run.privileged,
            # The value of a secret is never part of a key: a new password changes nothing about the work.
            # Nor is the name of the stage or image that a mount shows: its content is among the inputs.
            "mounts": [asdict(replace(mount, origin="")) for mount in run.mounts],
            "script": _file(run.script.name, run.script.content) if run.script else None,
        },
        inputs,
    )


def copy_key(parent: str, copy: CopyFiles, content: str) -> str:
    """`content` is the digest of the files, or what pins them down: a chain ID and paths."""
    return _key(
        "copy",
        "" if copy.link else parent,
        {
            "inline": [_file(file.name, file.content) for file in copy.inline],
            "destination": copy.destination,
            "into": copy.into,
            "owner": copy.owner,
            "mode": copy.mode,
            "excludes": copy.excludes,
            "parents": copy.parents,
            "link": copy.link,
            "unpack": copy.unpack if copy.unpack is not None else copy.is_add,
        },
        [content],
    )


def folder_key(parent: str, make: MakeFolder) -> str:
    return _key("folder", parent, {"path": make.path, "user": make.user}, ())


def change_key(before: str, change: ChangeConfig) -> str:
    """For configuration alone: no result but the time at which it was first made."""
    return _key("change", before, {"created_by": change.created_by}, ())


def pinned(chain: str, sources: Sequence[str]) -> str:
    """The content of another stage or image without reading it: its layers and the paths."""
    return "chain:" + hashlib.sha256(json.dumps([chain, list(sources)]).encode()).hexdigest()


def _file(name: str, content: bytes) -> list[str]:
    return [name, hashlib.sha256(content).hexdigest()]


def _key(kind: str, parent: str, work: dict[str, object], inputs: Sequence[str]) -> str:
    text = json.dumps([_VERSION, kind, parent, work, list(inputs)], sort_keys=True, ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
