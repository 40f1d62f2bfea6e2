"""What a build has to do, instruction by instruction, with every variable resolved. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from engine.build.mounts import Mount


@dataclass(frozen=True)
class InlineFile:
    """A file whose content stands in the Dockerfile."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Action:
    """`text` is shown while it goes on, `created_by` is what the image's history keeps."""

    line: int
    keyword: str
    text: str
    created_by: str


@dataclass(frozen=True)
class ChangeConfig(Action):
    """Only the image's configuration changed: no layer."""


@dataclass(frozen=True)
class RunCommand(Action):
    """A command in a container over the layers so far. `env` is what the image has, `args` what ARG adds."""

    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    args: tuple[tuple[str, str], ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
    user: str = ""
    working_dir: str = "/"
    mounts: tuple[Mount, ...] = ()
    origins: tuple[int | str | None, ...] = ()  # of each mount: a stage's position, an image, the build context
    network: str = "default"
    privileged: bool = False
    script: InlineFile | None = None  # shown at /dev/pipes/NAME


@dataclass(frozen=True)
class CopyFiles(Action):
    """COPY and ADD. `origin` is a stage's position, an image's name, or None for the build context.

    `destination` is absolute; `into` says that it must be a folder (it ended with a slash).
    """

    sources: tuple[str, ...] = ()
    inline: tuple[InlineFile, ...] = ()
    destination: str = "/"
    into: bool = False
    origin: int | str | None = None
    owner: str = ""
    mode: str = ""
    excludes: tuple[str, ...] = ()
    parents: bool = False
    link: bool = False
    unpack: bool | None = None  # None: local archives only, as ADD has it
    is_add: bool = False
    checksum: str = ""
    keep_git_dir: bool = False


@dataclass(frozen=True)
class MakeFolder(Action):
    """WORKDIR, with the folders above it, owned by `user`."""

    path: str = "/"
    user: str = ""
