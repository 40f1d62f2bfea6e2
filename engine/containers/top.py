"""`docker top`: a container's processes as ps(1) shows them, under the users that the container knows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from engine.containers import processes, psoptions, stats, users
from engine.containers.layered import Layered
from engine.containers.pscolumns import Surroundings


def top(first: int, pids: Sequence[int], arguments: str, files: Layered) -> dict[str, Any]:
    """{"Titles": [...], "Processes": [[...]]}.

    `pids`, the host's numbers as in Docker, are the processes; `first` is the one whose namespace says who is who, in
    the names of the container's own passwd and group. Raises InvalidInput for arguments that are not understood.
    """
    columns = psoptions.parse(arguments or "-ef")
    try:
        uids, gids = processes.IdMap.read(first, "uid"), processes.IdMap.read(first, "gid")
    except (FileNotFoundError, ProcessLookupError):
        pids, uids, gids = (), processes.IdMap(()), processes.IdMap(())
    around = Surroundings(
        now=time.time(),
        memory=stats.total_memory(),
        users=users.names(files.read("/etc/passwd") or b""),
        groups=users.names(files.read("/etc/group") or b""),
    )
    found = [process for pid in sorted(pids) if (process := processes.read(pid, uids, gids)) is not None]
    return {
        "Titles": [column.title for column in columns],
        "Processes": [[str(column.show(process, around)) for column in columns] for process in found],
    }
