"""Mounting without being seen: a thread in a mount namespace of its own, which ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from engine.kernel import libc

_Answer = TypeVar("_Answer")


def aside(call: Callable[[], _Answer]) -> _Answer:
    """Calls it in a copy of this process's mounts, of which nothing goes back. What it opens is the whole process's."""
    answers: list[_Answer] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            libc.unshare(libc.CLONE_NEWNS)
            libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
            answers.append(call())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="aside")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]
