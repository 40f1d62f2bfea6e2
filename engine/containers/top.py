"""`docker top`: a container's processes as the host's `ps` shows them."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Sequence
from typing import Any

from engine.errors import InvalidInput, SystemFailure


async def top(pids: Sequence[int], arguments: str) -> dict[str, Any]:
    """{"Titles": [...], "Processes": [[...]]}: of all the lines of `ps`, those whose PID is in `pids`.

    Raises InvalidInput when `ps` does not take the arguments, or its output then has no PID column.
    """
    try:
        words = shlex.split(arguments or "-ef")
    except ValueError as error:
        raise InvalidInput(f"invalid ps arguments {arguments!r}: {error}") from None
    try:
        process = await asyncio.create_subprocess_exec(
            "ps",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath + ":/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise SystemFailure("the host has no ps command: install procps") from None
    out, err = await process.communicate()
    if process.returncode:
        reason = err.decode(errors="replace").strip().splitlines()
        raise InvalidInput(f"ps: {reason[0] if reason else f'failed with {process.returncode}'}")
    return select(out.decode(errors="replace"), pids)


def select(text: str, pids: Sequence[int]) -> dict[str, Any]:
    """The lines of interest. Pure."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidInput("Couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    processes = []
    for line in lines[1:]:
        fields = line.split(maxsplit=len(titles) - 1)
        if len(fields) > column and fields[column] in wanted:
            processes.append(fields)
    return {"Titles": titles, "Processes": processes}
