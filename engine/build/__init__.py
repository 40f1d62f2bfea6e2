"""Builds: a Dockerfile and a context become an image.

The daemon makes one `Builder` and asks it with `BuildRequest`s; a client's tar becomes a context through
`receive`.
"""

from engine.build.builder import Builder, build
from engine.build.context import Context, FolderContext
from engine.build.problems import DockerfileError, StepError
from engine.build.progress import (
    BuildEvent,
    Built,
    Notice,
    Progress,
    Pulling,
    StepCached,
    StepFinished,
    StepOutput,
    StepStarted,
)
from engine.build.receiving import receive
from engine.build.request import BuildRequest
from engine.build.spool import SpooledContext

__all__ = [
    "BuildEvent",
    "BuildRequest",
    "Builder",
    "Built",
    "Context",
    "DockerfileError",
    "FolderContext",
    "Notice",
    "Progress",
    "Pulling",
    "SpooledContext",
    "StepCached",
    "StepError",
    "StepFinished",
    "StepOutput",
    "StepStarted",
    "build",
    "receive",
]
