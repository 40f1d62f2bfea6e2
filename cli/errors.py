"""What a command may fail with, and the one place that maps it to an exit code.

CommandError        exit 1: the command was understood and failed
└── UsageError      exit 2: what was asked for makes no sense (bad definition, bad option)
"""

from __future__ import annotations


class CommandError(Exception):
    """The command failed; `str(error)` is one line that names the thing, what is wrong and what to do."""

    exit_code = 1


class UsageError(CommandError):
    """What was asked for makes no sense as it stands."""

    exit_code = 2
