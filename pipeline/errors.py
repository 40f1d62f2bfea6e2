"""The few kinds of errors that leave this package: the server maps each to one HTTP status."""

from __future__ import annotations


class PipelineError(Exception):
    """The root. Its text is one line for people."""


class NotFound(PipelineError):
    """There is no such run, stage, service, release, repository or worker."""


class Conflict(PipelineError):
    """What is asked for does not fit the present state, such as cancelling a run that has ended."""


class LeaseLost(PipelineError):
    """The attempt belongs to somebody else now: stop the work, remove its containers, say no more."""


class SourceError(PipelineError):
    """git could not give what was asked for."""


class SettingsError(PipelineError):
    """The settings are wrong; the text names the key and the remedy."""


class Busy(PipelineError):
    """The other side can't be reached or is overloaded: the same call may succeed later."""
