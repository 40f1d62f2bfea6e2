"""`docker commit --change` and `docker import --change`: Dockerfile instructions that only touch the config."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

import msgspec

from engine.errors import InvalidInput
from engine.images.config import ContainerConfig, Healthcheck
from engine.images.variables import expanded

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z")
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_CONTINUED = re.compile(r"\\[ \t]*\n")
_SHELL = ("/bin/sh", "-c")
_EXPANDED = frozenset({"ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"})


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """`config` after the instructions, in order. Raises InvalidInput, as Docker does for all others."""
    for line in _lines(changes):
        word, _, rest = line.partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise InvalidInput(f"{word} is not a valid change command")
        if not rest.strip():
            raise InvalidInput(f"{word.upper()} requires at least one argument")
        rest = rest.strip()
        if word.upper() in _EXPANDED:
            env = dict(item.partition("=")[::2] for item in config.env)
            pairs = word.upper() in ("ENV", "LABEL") and "=" in rest.split()[0]
            rest = expanded(rest, env, quoting=pairs)
        config = apply(config, rest)
    return config


def _lines(changes: Sequence[str]) -> list[str]:
    """As in a Dockerfile: a change may be several lines, with comments, and a line may go on in the next."""
    lines = [line for line in "\n".join(changes).replace("\r\n", "\n").split("\n") if not line.lstrip().startswith("#")]
    return [line.strip() for line in _CONTINUED.sub("", "\n".join(lines)).split("\n") if line.strip()]


def _cmd(config: ContainerConfig, rest: str) -> ContainerConfig:
    return msgspec.structs.replace(config, cmd=_command(config, rest))


def _entrypoint(config: ContainerConfig, rest: str) -> ContainerConfig:
    return msgspec.structs.replace(config, entrypoint=_command(config, rest))


def _command(config: ContainerConfig, rest: str) -> tuple[str, ...]:
    exec_form = _json_strings(rest)
    return exec_form if exec_form is not None else (*(config.shell or _SHELL), rest)


def _json_strings(text: str) -> tuple[str, ...] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None


def _env(config: ContainerConfig, rest: str) -> ContainerConfig:
    env = dict(item.partition("=")[::2] for item in config.env)
    env.update(_pairs("ENV", rest))
    return msgspec.structs.replace(config, env=tuple(f"{key}={value}" for key, value in env.items()))


def _label(config: ContainerConfig, rest: str) -> ContainerConfig:
    return msgspec.structs.replace(config, labels={**config.labels, **dict(_pairs("LABEL", rest))})


def _pairs(instruction: str, rest: str) -> list[tuple[str, str]]:
    words = _words(rest)
    if "=" not in words[0]:
        if len(words) < 2:
            raise InvalidInput(f"{instruction} must have two arguments")
        key, _, value = rest.partition(" ")
        return [(key, value.strip())]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidInput(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs.append((key, value))
    return pairs


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"{text[:200]!r}: {error}") from None


def _expose(config: ContainerConfig, rest: str) -> ContainerConfig:
    ports = dict(config.exposed_ports)
    for word in rest.split():
        match = _PORT.match(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidInput(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{match[3] or 'tcp'}"] = {}
    return msgspec.structs.replace(config, exposed_ports=ports)


def _volume(config: ContainerConfig, rest: str) -> ContainerConfig:
    paths = _json_strings(rest)
    volumes = {path: dict[str, object]() for path in (paths if paths is not None else rest.split())}
    return msgspec.structs.replace(config, volumes={**config.volumes, **volumes})


def _user(config: ContainerConfig, rest: str) -> ContainerConfig:
    return msgspec.structs.replace(config, user=rest)


def _workdir(config: ContainerConfig, rest: str) -> ContainerConfig:
    path = rest if rest.startswith("/") else f"{config.working_dir.rstrip('/')}/{rest}"
    return msgspec.structs.replace(config, working_dir=path)


def _stop_signal(config: ContainerConfig, rest: str) -> ContainerConfig:
    return msgspec.structs.replace(config, stop_signal=rest)


def _on_build(config: ContainerConfig, rest: str) -> ContainerConfig:
    word = rest.split()[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidInput(f"{word} isn't allowed as an ONBUILD trigger")
    return msgspec.structs.replace(config, on_build=(*config.on_build, rest))


def _healthcheck(config: ContainerConfig, rest: str) -> ContainerConfig:
    options: dict[str, str] = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        key, _, value = option[2:].partition("=")
        options[key] = value
        rest = rest.strip()
    word, _, command = rest.partition(" ")
    if word.upper() == "NONE":
        return msgspec.structs.replace(config, healthcheck=Healthcheck(("NONE",)))
    if word.upper() != "CMD" or not command.strip():
        raise InvalidInput(f"Unknown type {word!r} in HEALTHCHECK (try CMD)")
    exec_form = _json_strings(command)
    check = Healthcheck(
        ("CMD", *exec_form) if exec_form is not None else ("CMD-SHELL", command.strip()),
        interval=_duration(options.pop("interval", "0s")),
        timeout=_duration(options.pop("timeout", "0s")),
        start_period=_duration(options.pop("start-period", "0s")),
        start_interval=_duration(options.pop("start-interval", "0s")),
        retries=_count(options.pop("retries", "0")),
    )
    if options:
        raise InvalidInput(f"Unknown flag: {next(iter(options))}")
    return msgspec.structs.replace(config, healthcheck=check)


def _duration(text: str) -> int:
    """Go's notation, in nanoseconds."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"invalid duration {text!r}: write it as 30s or 1m30s")
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _count(text: str) -> int:
    if not text.isdigit():
        raise InvalidInput(f"--retries must be a number, not {text!r}")
    return int(text)


_INSTRUCTIONS = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
