"""Nodes → typed instructions and stages; every refusal names the line and the instruction."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from engine.build import instructions as i
from engine.build.devicerequests import parse_device
from engine.build.durations import parse_duration
from engine.build.flags import Flags
from engine.build.lexer import SPACES, strip_leading_tabs
from engine.build.mounts import check_mount
from engine.build.parser import Heredoc, Node, Syntax, heredoc_of, parse
from engine.build.problems import DockerfileError, did_you_mean

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*\Z")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)
_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")
_LEAST_INTERVAL = 1_000_000  # one millisecond
_NETWORKS = ("default", "none", "host")


def read_dockerfile(source: bytes) -> i.Dockerfile:
    """Parses and interprets. Raises DockerfileError."""
    return interpret(parse(source))


def interpret(syntax: Syntax) -> i.Dockerfile:
    """Gives the nodes their meaning and gathers stages. Raises DockerfileError."""
    global_args: list[i.Arg] = []
    openings: list[i.From] = []
    steps: list[list[i.Instruction]] = []
    for node in syntax.nodes:
        meaning = instruction_of(node)
        if isinstance(meaning, i.From):
            openings.append(meaning)
            steps.append([])
        elif steps:
            steps[-1].append(meaning)
        elif isinstance(meaning, i.Arg):
            global_args.append(meaning)
        else:
            raise DockerfileError("no build stage in current context", node.start, meaning.keyword)
    return i.Dockerfile(
        tuple(global_args),
        tuple(i.Stage(opening, tuple(own)) for opening, own in zip(openings, steps, strict=True)),
        syntax.escape,
        syntax.warnings,
        tuple((directive.name, directive.value) for directive in syntax.directives),
    )


def instruction_of(node: Node) -> i.Instruction:
    """One node's meaning. Raises DockerfileError with the node's line."""
    read = _MEANINGS.get(node.keyword.lower())
    try:
        if read is None:
            suggestion = did_you_mean(node.keyword, (name.upper() for name in _MEANINGS), fold_case=True)
            raise DockerfileError(f"unknown instruction: {node.keyword}{suggestion}", node.start)
        return read(node, node.original.strip(SPACES))
    except DockerfileError as error:
        raise error.at(node.start, node.keyword.upper()) from None


def _no_flags(node: Node) -> None:
    Flags(node.flags)


def _one(node: Node) -> str:
    if len(node.args) != 1:
        raise DockerfileError(f"{node.keyword.upper()} requires exactly one argument")
    return node.args[0]


def _some(node: Node) -> tuple[str, ...]:
    if not node.args:
        raise DockerfileError(f"{node.keyword.upper()} requires at least one argument")
    return node.args


def _from(node: Node, code: str) -> i.From:
    name = ""
    if len(node.args) == 3 and node.args[1].lower() == "as":
        name = node.args[2].lower()
        if not _STAGE_NAME.match(name):
            raise DockerfileError(
                f'invalid name for build stage: "{node.args[2]}", name can\'t start with a number or contain symbols'
            )
    elif len(node.args) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    flags = Flags(node.flags, strings=("platform",))
    return i.From(node.start, code, node.args[0], name, flags.text("platform"))


def _arg(node: Node, code: str) -> i.Arg:
    declared: list[i.Declared] = []
    for word in _some(node):
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        declared.append(i.Declared(name, value if equals else None))
    return i.Arg(node.start, code, tuple(declared))


def _pairs(node: Node) -> tuple[i.Pair, ...]:
    _no_flags(node)
    args = _some(node)
    pairs = tuple(i.Pair(args[at], args[at + 1], not args[at + 2]) for at in range(0, len(args), 3))
    if not all(pair.name for pair in pairs):
        raise DockerfileError(f"{node.keyword.upper()} names can not be blank")
    return pairs


def _env(node: Node, code: str) -> i.Env:
    return i.Env(node.start, code, _pairs(node))


def _label(node: Node, code: str) -> i.Label:
    return i.Label(node.start, code, _pairs(node))


def _maintainer(node: Node, code: str) -> i.Maintainer:
    name = _one(node)
    _no_flags(node)
    return i.Maintainer(node.start, code, name)


def _command(node: Node) -> i.CommandLine:
    return i.CommandLine(node.args, not node.json, node.heredocs)


def _run(node: Node, code: str) -> i.Run:
    flags = Flags(node.flags, strings=("network", "security"), lists=("mount", "device"))
    network = flags.text("network", "default")
    if network not in _NETWORKS:
        raise DockerfileError(f'invalid network mode "{network}"{did_you_mean(network, _NETWORKS)}')
    security = flags.text("security", "sandbox")
    if security not in ("sandbox", "insecure"):
        raise DockerfileError(f'security "{security}" is not valid')
    for mount in flags.all("mount"):
        check_mount(mount)
    for device in flags.all("device"):
        parse_device(device)
    return i.Run(node.start, code, _command(node), flags.all("mount"), network, security, flags.all("device"))


def _cmd(node: Node, code: str) -> i.Cmd:
    _no_flags(node)
    return i.Cmd(node.start, code, _command(node))


def _entrypoint(node: Node, code: str) -> i.Entrypoint:
    _no_flags(node)
    return i.Entrypoint(node.start, code, _command(node))


def _shell(node: Node, code: str) -> i.Shell:
    _no_flags(node)
    words = _some(node)
    if not node.json:
        raise DockerfileError(f"SHELL requires the arguments to be in JSON form, not: {node.original}")
    return i.Shell(node.start, code, words)


def _sources(node: Node) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    keyword = node.keyword.upper()
    if len(node.args) < 2:
        raise DockerfileError(
            f"{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        )
    *given, destination = node.args
    if _opens_heredoc(destination):
        raise DockerfileError(f"{keyword} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc.body for heredoc in node.heredocs}
    sources: list[str] = []
    inline: list[Heredoc] = []
    for source in given:
        heredoc = _opens_heredoc(source)
        if heredoc is None:
            sources.append(source)
            continue
        body = bodies.get(heredoc.name, "")
        inline.append(replace(heredoc, body=strip_leading_tabs(body) if heredoc.strip_tabs else body))
    return tuple(sources), tuple(inline), destination


def _opens_heredoc(word: str) -> Heredoc | None:
    try:
        return heredoc_of(word)
    except DockerfileError:
        return None


def _copy(node: Node, code: str) -> i.Copy:
    flags = (
        Flags(node.flags, strings=("chown", "chmod", "from"), lists=("exclude",), switches=("link", "parents"))
        if len(node.args) >= 2
        else Flags(())
    )
    sources, inline, destination = _sources(node)
    return i.Copy(
        node.start, code, sources, inline, destination,
        chown=flags.text("chown"), chmod=flags.text("chmod"), link=flags.switch("link"),
        excludes=flags.all("exclude"), origin=flags.text("from"), parents=flags.switch("parents"),
    )  # fmt: skip


def _add(node: Node, code: str) -> i.Add:
    flags = (
        Flags(
            node.flags,
            strings=("chown", "chmod", "checksum"),
            lists=("exclude",),
            switches=("link", "keep-git-dir", "unpack"),
        )
        if len(node.args) >= 2
        else Flags(())
    )
    sources, inline, destination = _sources(node)
    return i.Add(
        node.start, code, sources, inline, destination,
        chown=flags.text("chown"), chmod=flags.text("chmod"), link=flags.switch("link"),
        excludes=flags.all("exclude"), checksum=flags.text("checksum"),
        keep_git_dir=flags.switch_or_unset("keep-git-dir"), unpack=flags.switch_or_unset("unpack"),
    )  # fmt: skip


def _expose(node: Node, code: str) -> i.Expose:
    ports = _some(node)
    _no_flags(node)
    return i.Expose(node.start, code, tuple(sorted(ports)))


def _volume(node: Node, code: str) -> i.Volume:
    paths = tuple(path.strip(SPACES) for path in _some(node))
    _no_flags(node)
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return i.Volume(node.start, code, paths)


def _user(node: Node, code: str) -> i.User:
    user = _one(node)
    _no_flags(node)
    return i.User(node.start, code, user)


def _workdir(node: Node, code: str) -> i.Workdir:
    path = _one(node)
    _no_flags(node)
    return i.Workdir(node.start, code, path)


def _stop_signal(node: Node, code: str) -> i.StopSignal:
    return i.StopSignal(node.start, code, _one(node))


def _healthcheck(node: Node, code: str) -> i.Healthcheck:
    kind, *command = _some(node)
    if kind.upper() == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return i.Healthcheck(node.start, code, ("NONE",))
    flags = Flags(node.flags, strings=_HEALTH_FLAGS)
    if kind.upper() != "CMD":
        raise DockerfileError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    if not command:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    return i.Healthcheck(
        node.start,
        code,
        ("CMD" if node.json else "CMD-SHELL", *command),
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise DockerfileError(f"--{name}: {error}") from None
    if duration and duration < _LEAST_INTERVAL:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms')
    return duration


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text):
        raise DockerfileError(f"--retries must be a number, not {text}")
    if int(text) < 0:
        raise DockerfileError(f"--retries cannot be negative ({int(text)})")
    return int(text)


def _on_build(node: Node, code: str) -> i.OnBuild:
    if node.child is None:
        raise DockerfileError("ONBUILD requires at least one argument")
    _no_flags(node)
    trigger = node.child.keyword.upper()
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    expression = _ONBUILD.sub("", node.original, count=1)
    for heredoc in node.heredocs:
        expression += f"\n{heredoc.body}{heredoc.name}"
    return i.OnBuild(node.start, code, expression)


_MEANINGS: dict[str, Callable[[Node, str], i.Instruction]] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _on_build,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stop_signal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
