"""What each instruction of a Dockerfile says, typed. Words are as written: expansion comes at evaluation.

https://docs.docker.com/reference/dockerfile/#overview
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.build.parser import Heredoc


@dataclass(frozen=True)
class Instruction:
    """`line` is the first of its lines in the file, from 1; `code` its text, continuation lines joined."""

    line: int
    code: str

    @property
    def keyword(self) -> str:
        """The instruction's name in upper case."""
        return self.code.split(maxsplit=1)[0].upper() if self.code.strip() else ""


@dataclass(frozen=True)
class Pair:
    """`name=value`; `spaced` is the old form with a blank between."""

    name: str
    value: str
    spaced: bool = False


@dataclass(frozen=True)
class Declared:
    """One name of ARG; `default` is None where none is given."""

    name: str
    default: str | None


@dataclass(frozen=True)
class CommandLine:
    """A command of RUN, CMD or ENTRYPOINT: `shell` form is one word for the shell, exec form the words."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True)
class From(Instruction):
    base: str
    name: str = ""  # lower case, empty without AS
    platform: str = ""


@dataclass(frozen=True)
class Arg(Instruction):
    declared: tuple[Declared, ...]


@dataclass(frozen=True)
class Env(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Label(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True)
class Run(Instruction):
    command: CommandLine
    mounts: tuple[str, ...] = ()  # the options as written: they may hold variables
    network: str = "default"  # default, none, host
    security: str = "sandbox"  # sandbox, insecure
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cmd(Instruction):
    command: CommandLine


@dataclass(frozen=True)
class Entrypoint(Instruction):
    command: CommandLine


@dataclass(frozen=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True)
class Transfer(Instruction):
    """What COPY and ADD share."""

    sources: tuple[str, ...]
    inline: tuple[Heredoc, ...]  # files whose content stands in the Dockerfile, named by the heredoc
    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy(Transfer):
    origin: str = ""  # --from: a stage's name or number, or an image
    parents: bool = False


@dataclass(frozen=True)
class Add(Transfer):
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True)
class User(Instruction):
    user: str


@dataclass(frozen=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True)
class Healthcheck(Instruction):
    """Durations in nanoseconds, 0 where the engine's default holds; `test` as the image keeps it."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True)
class OnBuild(Instruction):
    expression: str  # the trigger with its heredoc bodies, to be parsed in the build that inherits it


@dataclass(frozen=True)
class Stage:
    """FROM and what follows it up to the next one."""

    opening: From
    steps: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.opening.name


@dataclass(frozen=True)
class Dockerfile:
    """A whole file with meaning. `global_args` are the ARGs before the first FROM."""

    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    warnings: tuple[str, ...] = ()
    directives: tuple[tuple[str, str], ...] = ()
