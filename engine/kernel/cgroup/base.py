"""The face of a container's control group, and what is common to both versions. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

    Resources = Mapping[str, Any]
    """The `linux.resources` object of the OCI runtime spec, with its JSON names."""


class Cgroup(ABC):
    """One container's group. `path` is from the hierarchy's root: `/shipway/1f2e3d4c/<container id>`."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def folders(self) -> list[str]:
        """Every folder of the group: one a hierarchy."""

    @abstractmethod
    def apply(self, resources: Resources) -> None:
        """Sets the limits that `resources` names; the others stay."""

    @abstractmethod
    def freeze(self) -> None:
        """Stops every process; returns when they have stopped."""

    @abstractmethod
    def thaw(self) -> None: ...

    @abstractmethod
    def frozen(self) -> bool: ...

    @abstractmethod
    def oom_kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""

    @abstractmethod
    def oom_bell(self) -> tuple[int, int]:
        """A descriptor, the caller's to close, and the epoll(7) events by which it tells that a process may have been
        killed for want of memory. Raises OSError where the group has no account of memory."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Usage: cpu in nanoseconds, memory in bytes, pids as a number, block i/o in bytes and operations. What this
        version of cgroups does not tell is None or empty; so is a limit that is not set."""

    @abstractmethod
    def pressure(self) -> dict[str, dict[str, int]]:
        """For cpu, memory and io the microseconds that some, or all, processes have waited for it; empty where the
        kernel does not count them for a group."""

    def create(self) -> None:
        for folder in self.folders():
            make(folder)

    @abstractmethod
    def join(self) -> None:
        """Brings this process in; it must have one thread."""

    def doors(self) -> list[int] | None:
        """Descriptors, the caller's to close; a process with one thread that writes `0` to each is a member then.

        None where the kernel makes such a move wait, and only a birth in the group is quick.
        """
        return None

    @abstractmethod
    def bear(self, clone: Callable[[int, int | None], int], flags: int) -> int:
        """`clone(flags, folder's descriptor or None)`, with the child a member from its first moment. The group must
        be new: in one that is frozen the caller could be caught."""

    @abstractmethod
    def bear_outside(self, clone: Callable[[int, int | None], int], flags: int) -> int:
        """As `bear`, in any group; the child must then `join`."""

    def processes(self) -> list[int]:
        """The pids inside, as this process's namespace numbers them; groups below included."""
        found: set[int] = set()
        for parent, _, _ in os.walk(self.folders()[0]):
            found.update(int(line) for line in read(f"{parent}/cgroup.procs").split())
        return sorted(found)

    def end(self, patience: float = 10.0) -> None:
        """Kills whatever is inside, frozen or not, and removes the group. Nobody may be there to start more."""
        deadline = time.monotonic() + patience
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # The frozen ones hear it once they thaw.
            with contextlib.suppress(OSError):
                self.thaw()
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"processes {pids} do not end", self.path)
            time.sleep(0.001)
        self.remove()

    def remove(self, patience: float = 2.0) -> None:
        """Removes the group and those below it. A killed process may take a moment to leave."""
        deadline = time.monotonic() + patience
        for folder in self.folders():
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                remove_tree(folder, deadline)


def make(folder: str) -> None:
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(folder, 0o755, exist_ok=True)


def write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = f"{path} = {value}"
        raise
    finally:
        os.close(fd)


def weigh(path: str, device: Mapping[str, int], weight: int) -> None:
    """The weight of one disk."""
    number = f"{device['major']}:{device['minor']}"
    try:
        write(path, f"{number} {weight}")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise OSError(error.errno, "this disk's i/o scheduler knows no weights: bfq does", number) from None


def read(path: str) -> str:
    """The file's text; empty where there is no such file."""
    try:
        # Python's own files cost nine system calls; this is read at each start and end of a container.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # To its end: of a list the kernel gives as many lines as fit into a page, and then the next.
            return os.fsdecode(b"".join(iter(lambda: os.read(fd, 65536), b"")))
        finally:
            os.close(fd)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return ""
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def number(path: str) -> int:
    text = read(path).strip()
    return int(text) if text.isdigit() else 0


def flat(text: str) -> dict[str, int]:
    """`key value` lines."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def triples(text: str) -> list[dict[str, Any]]:
    """`8:0 Read 4096` lines; what is of no device is left out."""
    found = []
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 3 and ":" in parts[0]:
            major, minor = map(int, parts[0].split(":"))
            found.append({"major": major, "minor": minor, "op": parts[1], "value": int(parts[2])})
    return found


def remove_tree(folder: str, deadline: float) -> None:
    for parent, _, _ in os.walk(folder, topdown=False):
        pause = 0.0005
        while True:
            try:
                os.rmdir(parent)
                break
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(0.02, pause * 2)
