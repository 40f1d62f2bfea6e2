"""The few kinds of errors that leave this package."""

from __future__ import annotations


class DeployError(Exception):
    """The root. Its text is one line for people."""


class EngineError(DeployError):
    """The host's engine refused or can't be reached."""


class ReplicaFailed(DeployError):
    """A replica did not become healthy, or did not stay so; says which and why."""


class Busy(DeployError):
    """Another rollout or the host's own upkeep holds the service's lock for too long."""
