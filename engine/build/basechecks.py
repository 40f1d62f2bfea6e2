"""Build checks of what a build is made of: base images as defaults name them, and files that are left out.

https://docs.docker.com/reference/build-checks/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from engine.build.actions import Action, CopyFiles
from engine.build.checks import Finding
from engine.build.expand import ExpansionError, Rules, read
from engine.build.filematch import clean
from engine.build.graph import PlannedStage
from engine.build.ignore import IgnoreRules
from engine.build.instructions import Dockerfile
from engine.build.remote import is_git, is_url
from engine.errors import InvalidInput
from engine.images.descriptor import Platform
from engine.images.reference import Reference


def check_defaults(dockerfile: Dockerfile, defaults: Mapping[str, str]) -> Iterator[Finding]:
    """`defaults` are the variables of a build that is given no arguments."""
    rules = Rules(escape=dockerfile.escape)
    for stage in dockerfile.stages:
        base = stage.opening.base
        try:
            Reference.parse(read(base, defaults, rules).text)
        except (InvalidInput, ExpansionError):
            message = f"Default value for ARG {base} results in empty or invalid base image name"
            yield Finding("InvalidDefaultArgInFrom", stage.opening.line, message)


def check_platform(planned: PlannedStage, actual: Platform, target: Platform) -> Iterator[Finding]:
    """`actual` is the base image's."""
    expected = planned.platform or target
    if not expected.runs(actual):
        message = f'Base image {planned.base} was pulled with platform "{actual}", expected "{expected}"'
        yield Finding("InvalidBaseImagePlatform", planned.stage.opening.line, f"{message} for current build")


def check_copies(actions: Iterable[Action], ignored: IgnoreRules) -> Iterator[Finding]:
    """Exceptions could bring back any part of what is ignored: then nothing is said."""
    if not ignored or ignored.has_exceptions:
        return
    for action in actions:
        if not isinstance(action, CopyFiles) or action.origin is not None:
            continue
        for source in action.sources:
            path = clean("/" + source).lstrip("/")
            if is_url(source) or is_git(source) or not path or not ignored.matches(path):
                continue
            verb = "Add" if action.is_add else "Copy"
            message = f'Attempting to {verb} file "{path}" that is excluded by .dockerignore'
            yield Finding("CopyIgnoredFile", action.line, message)
