"""A stage's instructions over its base's configuration → actions and the resulting configuration. Pure."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from engine.build import instructions as i
from engine.build.actions import Action, ChangeConfig, CopyFiles, InlineFile, MakeFolder, RunCommand
from engine.build.checks import Finding
from engine.build.checksums import check_checksum
from engine.build.devicerequests import parse_device
from engine.build.expand import ExpansionError
from engine.build.exposed import exposed_ports
from engine.build.filematch import clean
from engine.build.gofmt import plain_list, quoted_list
from engine.build.lexer import strip_leading_tabs
from engine.build.modes import parse_mode
from engine.build.mounts import Mount, parse_mount
from engine.build.parser import heredoc_of
from engine.build.platforms import PROXY_ARGS
from engine.build.problems import DockerfileError, did_you_mean
from engine.build.remote import is_git, is_url, parse_git
from engine.build.scope import Scope
from engine.images.config import ContainerConfig, Healthcheck, ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = ("/bin/sh", "-c")
_NUMBERED_SIGNAL = re.compile(r"[0-9]{1,3}\Z")
_REALTIME_SIGNAL = re.compile(r"(SIG)?RTM(IN(\+[0-9]+)?|AX(-[0-9]+)?)\Z")


@dataclass(frozen=True)
class Surroundings:
    """What holds for all stages of one build. `origin_of` finds the stage that --from names, if it is one."""

    global_args: Mapping[str, str]
    build_args: Mapping[str, str]
    escape: str
    origin_of: Callable[[str], int | str]


@dataclass(frozen=True)
class Base:
    """What a stage begins with: an image's configuration and, from another stage, its ARGs."""

    config: ImageConfig
    args: Mapping[str, str | None] = field(default_factory=dict)
    workdir_given: bool = False  # by this Dockerfile: whatever follows does not depend on an image's


@dataclass(frozen=True)
class Evaluated:
    """A stage's work and its outcome; layers and history are the solver's to add to `config`."""

    actions: tuple[Action, ...]
    config: ImageConfig
    args: Mapping[str, str | None]
    undeclared: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    workdir_given: bool = False


def evaluate(steps: Sequence[i.Instruction], base: Base, around: Surroundings) -> Evaluated:
    """Walks through a stage. Raises DockerfileError with the line and the instruction."""
    walk = _Walk(base, around)
    for step in steps:
        try:
            walk.take(step)
        except (DockerfileError, ExpansionError, ValueError) as error:
            problem = error if isinstance(error, DockerfileError) else DockerfileError(str(error))
            raise problem.at(step.line, step.keyword) from None
    return walk.result()


def printable(text: str) -> str:
    """Bytes that are no UTF-8 have no place in JSON: they become U+FFFD, as Go's encoder has it."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Walk:
    def __init__(self, base: Base, around: Surroundings) -> None:
        self._around = around
        self._image = base.config
        # Triggers run in the build that inherits them and go no further.
        self._config = msgspec.structs.replace(base.config.config, on_build=())
        if not any(pair.startswith("PATH=") for pair in self._config.env):
            self._set(env=(*self._config.env, f"PATH={DEFAULT_PATH}"))
        self._scope = Scope(self._config.env, around.global_args, around.build_args, around.escape, base.args)
        self._cmd_given = False
        self._workdir_given = base.workdir_given
        self._findings: list[Finding] = []
        self._actions: list[Action] = []

    def result(self) -> Evaluated:
        image = msgspec.structs.replace(self._image, config=self._config)
        return Evaluated(
            tuple(self._actions),
            image,
            dict(self._scope.args),
            self._scope.undeclared(),
            tuple(self._findings),
            self._workdir_given,
        )

    def take(self, step: i.Instruction) -> None:
        self._scope.missed.clear()
        known = list(self._scope)
        _HANDLERS[type(step)](self, step)
        for name in sorted(self._scope.missed):
            hint = did_you_mean(name, known).replace("mean ", "mean $")
            self._findings.append(Finding("UndefinedVar", step.line, f"Usage of undefined variable '${name}'{hint}"))

    def _set(self, **changes: Any) -> None:
        self._config = msgspec.structs.replace(self._config, **changes)

    def _change(self, step: i.Instruction, created_by: str) -> None:
        self._actions.append(ChangeConfig(step.line, step.keyword, step.code, printable(created_by)))

    def _with_shell(self, command: i.CommandLine) -> tuple[str, ...]:
        if not command.shell:
            return command.words
        return (*(self._config.shell or _SHELL), " ".join(command.words))

    def arg(self, step: i.Arg) -> None:
        shown: list[str] = []
        for name in step.declared:
            value = self._scope.declare(name.name, name.default)
            shown.append(name.name if value is None else f"{name.name}={value}")
        self._change(step, f"ARG {' '.join(shown)}")

    def env(self, step: i.Env) -> None:
        # Every pair sees the variables as they were before the instruction.
        pairs = [(self._scope.word(pair.name), self._scope.word(pair.value)) for pair in step.pairs]
        env = list(self._config.env)
        for name, value in pairs:
            self._scope.set(name, value)
            entry = printable(f"{name}={value}")
            at = next((at for at, old in enumerate(env) if old.partition("=")[0] == name), None)
            if at is None:
                env.append(entry)
            else:
                env[at] = entry
        self._set(env=tuple(env))
        self._change(step, "ENV " + " ".join(f"{name}={value}" for name, value in pairs))

    def label(self, step: i.Label) -> None:
        pairs = [(self._scope.word(pair.name), self._scope.word(pair.value)) for pair in step.pairs]
        labels = {**self._config.labels, **{printable(name): printable(value) for name, value in pairs}}
        self._set(labels=labels)
        self._change(step, "LABEL " + " ".join(f"{name}={value}" for name, value in pairs))

    def maintainer(self, step: i.Maintainer) -> None:
        self._image = msgspec.structs.replace(self._image, author=printable(step.name))
        self._change(step, f"MAINTAINER {step.name}")

    def user(self, step: i.User) -> None:
        user = self._scope.word(step.user)
        self._set(user=printable(user))
        self._change(step, f"USER {user}")

    def workdir(self, step: i.Workdir) -> None:
        given = self._scope.word(step.path)
        if not self._workdir_given and not given.startswith("/"):
            message = f'Relative workdir "{given}" can have unexpected results if the base image changes'
            self._findings.append(Finding("WorkdirRelativePath", step.line, message))
        self._workdir_given = True
        path = clean(posixpath.join("/", self._config.working_dir or "/", given))
        self._set(working_dir=printable(path))
        if path == "/":
            self._change(step, "WORKDIR /")
            return
        self._actions.append(
            MakeFolder(step.line, step.keyword, step.code, printable(f"WORKDIR {path}"), path, self._config.user)
        )

    def volume(self, step: i.Volume) -> None:
        paths = [self._scope.word(path) for path in step.paths]
        if not all(paths):
            raise DockerfileError("VOLUME specified can not be an empty string")
        self._set(volumes={**self._config.volumes, **{printable(path): {} for path in paths}})
        self._change(step, f"VOLUME {plain_list(paths)}")

    def expose(self, step: i.Expose) -> None:
        words = [word for port in step.ports for word in self._scope.words(port)]
        ports = [port for word in words for port in exposed_ports(word)]
        for word in words:
            if word.partition("/")[2] != word.partition("/")[2].lower():
                message = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
                self._findings.append(Finding("ExposeProtoCasing", step.line, message))
            if ":" in word:
                message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                self._findings.append(Finding("ExposeInvalidFormat", step.line, message))
        self._set(exposed_ports={**self._config.exposed_ports, **{port: {} for port in ports}})
        self._change(step, f"EXPOSE {plain_list(ports)}")

    def stop_signal(self, step: i.StopSignal) -> None:
        name = self._scope.word(step.signal)
        if not _is_signal(name):
            raise DockerfileError(f"invalid signal: {name}")
        self._set(stop_signal=name)
        self._change(step, f"STOPSIGNAL {name}")

    def shell(self, step: i.Shell) -> None:
        self._set(shell=tuple(map(printable, step.words)))
        self._change(step, f"SHELL {plain_list(step.words)}")

    def cmd(self, step: i.Cmd) -> None:
        words = self._with_shell(step.command)
        self._cmd_given = True
        self._set(cmd=tuple(map(printable, words)), args_escaped=False)
        self._change(step, f"CMD {quoted_list(words)}")

    def entrypoint(self, step: i.Entrypoint) -> None:
        words = self._with_shell(step.command) if step.command.words or step.command.shell else ()
        self._set(entrypoint=tuple(map(printable, words)) or None)
        if not self._cmd_given:
            self._set(cmd=None)  # the base's arguments were meant for the base's command
        self._change(step, f"ENTRYPOINT {quoted_list(words)}")

    def healthcheck(self, step: i.Healthcheck) -> None:
        check = Healthcheck(
            test=tuple(map(printable, step.test)),
            interval=step.interval,
            timeout=step.timeout,
            start_period=step.start_period,
            start_interval=step.start_interval,
            retries=step.retries,
        )
        self._set(healthcheck=check)
        self._change(step, step.code)

    def on_build(self, step: i.OnBuild) -> None:
        self._set(on_build=(*self._config.on_build, printable(step.expression)))
        self._change(step, f"ONBUILD {step.expression}")

    def run(self, step: i.Run) -> None:
        for device in map(parse_device, step.devices):
            # One that is only wished for may be absent: the step runs without it.
            if device.required:
                raise DockerfileError(f"device {device.name} is required, and steps get no devices of the host")
        mounts = tuple(self._mount(text) for text in step.mounts)
        words, script = _with_heredocs(step.command)
        argv = self._with_shell(i.CommandLine(words, step.command.shell))
        args = self._scope.run_args
        shown = [f"{name}={args[name]}" for name in self._scope.args if name in args]
        counted = [f"|{len(shown)}", *shown] if shown else []
        self._actions.append(
            RunCommand(
                step.line,
                step.keyword,
                step.code,
                printable("RUN " + " ".join([*counted, *argv])),
                argv=argv,
                env=self._config.env,
                args=tuple(sorted(args.items())),
                proxies=tuple(
                    sorted(
                        (name, value)
                        for name, value in self._around.build_args.items()
                        if name in PROXY_ARGS and name not in args and name not in self._scope.env
                    )
                ),
                user=self._config.user,
                working_dir=self._config.working_dir or "/",
                mounts=mounts,
                origins=tuple(self._around.origin_of(mount.origin) if mount.origin else None for mount in mounts),
                network=step.network,
                privileged=step.security == "insecure",
                script=script,
            )
        )

    def _mount(self, text: str) -> Mount:
        mount = parse_mount(text, self._scope.word)
        if mount.type == "cache" and not mount.id:
            mount = replace(mount, id=clean(mount.target))
        if mount.target or mount.type not in ("secret", "ssh"):
            target = clean(posixpath.join("/", self._config.working_dir or "/", mount.target))
            if target == "/":
                raise DockerfileError(f'invalid mount target "{mount.target}"')
            mount = replace(mount, target=target)
        return mount

    def copy(self, step: i.Copy) -> None:
        origin = self._around.origin_of(step.origin) if step.origin else None
        sources = tuple(self._scope.word(source) for source in step.sources)
        for source in sources:
            if is_git(source):
                raise DockerfileError("source can't be a git ref for COPY")
            if is_url(source):
                raise DockerfileError("source can't be a URL for COPY")
        self._transfer(step, sources, origin=origin, parents=step.parents)

    def add(self, step: i.Add) -> None:
        sources = tuple(self._scope.word(source) for source in step.sources)
        checksum = self._scope.word(step.checksum)
        if checksum:
            if len(sources) != 1:
                raise DockerfileError("checksum can't be specified for multiple sources")
            if is_url(sources[0]):
                check_checksum(checksum)
            elif not is_git(sources[0]):
                raise DockerfileError("checksum requires HTTP(S) or Git sources")
        for git in filter(None, map(parse_git, sources)):
            if checksum and git.checksum and checksum != git.checksum:
                raise DockerfileError(f'checksum mismatch "{checksum}" != "{git.checksum}"')
            if None not in (step.keep_git_dir, git.keep_git_dir) and step.keep_git_dir != git.keep_git_dir:
                raise DockerfileError("inconsistent keep-git-dir configuration")
        self._transfer(
            step,
            sources,
            unpack=step.unpack,
            is_add=True,
            checksum=checksum,
            keep_git_dir=bool(step.keep_git_dir),
        )

    def _transfer(self, step: i.Transfer, sources: tuple[str, ...], **more: Any) -> None:
        destination = self._scope.word(step.destination)
        into = destination in ("", ".") or destination.endswith(("/", "/.")) or bool(more.get("parents"))
        if len(sources) + len(step.inline) > 1 and not into:
            raise DockerfileError(
                f"When using {step.keyword} with more than one source file, "
                "the destination must be a directory and end with a /"
            )
        owner, mode = self._scope.word(step.chown), self._scope.word(step.chmod)
        if mode:
            parse_mode(mode)
        inline = tuple(
            InlineFile(
                heredoc.name,
                (self._scope.body(heredoc.body) if heredoc.expand else heredoc.body).encode("utf-8", "surrogateescape"),
            )
            for heredoc in step.inline
        )
        shown = [step.keyword]
        shown += ["--parents"] if more.get("parents") else []
        shown += [f"--chown={owner}"] if owner else []
        shown += [f"--chmod={mode}"] if mode else []
        shown += [*sources, *(f"<<{file.name}" for file in inline), destination]
        self._actions.append(
            CopyFiles(
                step.line,
                step.keyword,
                step.code,
                printable(" ".join(shown)),
                sources=sources,
                inline=inline,
                destination=clean(posixpath.join("/", self._config.working_dir or "/", destination)),
                into=into,
                owner=owner,
                mode=mode,
                excludes=step.excludes,
                link=step.link,
                **more,
            )
        )


def _with_heredocs(command: i.CommandLine) -> tuple[tuple[str, ...], InlineFile | None]:
    """RUN's words once its heredocs are in them; a lone heredoc with `#!` becomes a file to run."""
    if not command.heredocs:
        return command.words, None
    (line,) = command.words
    if heredoc_of(line) is None:
        # The shell reads its heredocs itself.
        bodies = "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in command.heredocs)
        return (line + bodies,), None
    first = command.heredocs[0]
    body = strip_leading_tabs(first.body) if first.strip_tabs else first.body
    if body.startswith("#!"):
        script = InlineFile(first.name, body.encode("utf-8", "surrogateescape"))
        return (posixpath.join("/dev/pipes", first.name),), script
    return (body,), None


def _is_signal(name: str) -> bool:
    if _NUMBERED_SIGNAL.match(name):
        return 1 <= int(name) <= 64
    upper = name.upper()
    return bool(_REALTIME_SIGNAL.match(upper)) or upper.removeprefix("SIG") in {
        known.name.removeprefix("SIG") for known in signal.Signals
    }


_HANDLERS: dict[type[i.Instruction], Callable[[_Walk, Any], None]] = {
    i.Arg: _Walk.arg,
    i.Env: _Walk.env,
    i.Label: _Walk.label,
    i.Maintainer: _Walk.maintainer,
    i.User: _Walk.user,
    i.Workdir: _Walk.workdir,
    i.Volume: _Walk.volume,
    i.Expose: _Walk.expose,
    i.StopSignal: _Walk.stop_signal,
    i.Shell: _Walk.shell,
    i.Cmd: _Walk.cmd,
    i.Entrypoint: _Walk.entrypoint,
    i.Healthcheck: _Walk.healthcheck,
    i.OnBuild: _Walk.on_build,
    i.Run: _Walk.run,
    i.Copy: _Walk.copy,
    i.Add: _Walk.add,
}


def empty_config(architecture: str, os: str, variant: str | None) -> ImageConfig:
    """What FROM scratch begins with."""
    return ImageConfig(architecture=architecture, os=os, variant=variant, config=ContainerConfig())
