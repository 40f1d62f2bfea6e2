"""Build checks: what a Dockerfile says that works, and that its author may not have meant.

https://docs.docker.com/reference/build-checks/, and https://docs.docker.com/reference/dockerfile/#check for the
directive: `# check=skip=RULE,RULE;error=true` for the whole file, `# check=skip=RULE` above one instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from engine.build import instructions as i
from engine.build.expand import Rules, read
from engine.build.mounts import boolean
from engine.build.parser import Node, Syntax
from engine.build.problems import DockerfileError, did_you_mean

ASKED_BY = "BUILDKIT_DOCKERFILE_CHECK"
_ALL = "all"
_COMMENT = re.compile(r"check\s*=\s*(\S+)", re.IGNORECASE)
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_RESERVED = frozenset({"context", "scratch"})


@dataclass(frozen=True)
class Finding:
    """A rule that an instruction breaks."""

    rule: str
    line: int
    message: str


@dataclass(frozen=True)
class Settings:
    """Which rules are not asked (`all` for none), and whether a finding fails the build."""

    skip: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, finding: Finding) -> bool:
        return not {finding.rule, _ALL} & self.skip


def parse_settings(text: str) -> Settings:
    """`skip=A,B;error=true`. Raises DockerfileError."""
    skip: frozenset[str] = frozenset()
    error = False
    for part in filter(None, text.strip().split(";", 2)):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key == "skip" and equals:
            skip = frozenset(name.strip() for name in value.split(","))
        elif key == "error" and equals:
            error = boolean("check option error", value)
        elif key != "experimental" or not equals:
            raise DockerfileError(f'invalid check option "{part}"')
    return Settings(skip, error)


def settings_of(syntax: Syntax, build_args: Mapping[str, str]) -> Settings:
    """The directive's, unless the build argument says otherwise. Raises DockerfileError."""
    written = next((directive.value for directive in syntax.directives if directive.name == "check"), "")
    return parse_settings(build_args.get(ASKED_BY, written))


def chosen(findings: Iterable[Finding], syntax: Syntax, settings: Settings) -> list[Finding]:
    """Those that neither the file's settings nor the comments above the instruction leave out, by line."""
    comments = {node.start: node.comments for node in syntax.nodes}
    kept = dict.fromkeys(
        finding
        for finding in findings
        if settings.wants(finding) and _above(comments.get(finding.line, ())).wants(finding)
    )
    return sorted(kept, key=lambda finding: (finding.line, finding.rule))


def _above(comments: Iterable[str]) -> Settings:
    for comment in comments:
        match = _COMMENT.match(comment)
        if match:
            try:
                return parse_settings(match.group(1))
            except DockerfileError:
                return Settings()
    return Settings()


def check_file(syntax: Syntax, dockerfile: i.Dockerfile) -> Iterator[Finding]:
    """What can be seen without variables, in every stage."""
    for warning in syntax.warnings:
        line = int(warning.split(":", 1)[0].removeprefix("line "))
        yield Finding("NoEmptyContinuation", line, "Empty continuation line")
    for node in syntax.nodes:
        if node.keyword.lower() == "maintainer":
            message = "Maintainer instruction is deprecated in favor of using label"
            yield Finding("MaintainerDeprecated", node.start, message)
        elif node.keyword.lower() == "from" and len(node.args) == 3:
            yield from _from(node)
    yield from _casing(syntax)
    names: set[str] = set()
    for stage in dockerfile.stages:
        line = stage.opening.line
        if stage.name in _RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield Finding("ReservedStageName", line, message)
        if stage.name and stage.name in names:
            message = f'Duplicate stage name "{stage.name}", stage names should be unique'
            yield Finding("DuplicateStageName", line, message)
        names.add(stage.name)


def check_openings(dockerfile: i.Dockerfile, variables: Mapping[str, str]) -> Iterator[Finding]:
    """The variables and platforms of every FROM."""
    declared = {name.name for arg in dockerfile.global_args for name in arg.declared}
    rules = Rules(escape=dockerfile.escape)
    for stage in dockerfile.stages:
        opening = stage.opening
        for word in filter(None, (opening.base, opening.platform)):
            for name in sorted(read(word, variables, rules).unknown - declared):
                message = f"FROM argument '{name}' is not declared{did_you_mean(name, {*variables, *declared})}"
                yield Finding("UndefinedArgInFrom", opening.line, message)
        if not opening.platform:
            continue
        found = read(opening.platform, variables, rules)
        if found.used == {"TARGETPLATFORM"} and not found.unknown and found.text == variables["TARGETPLATFORM"]:
            variable = opening.platform
            message = f"Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
            yield Finding("RedundantTargetPlatform", opening.line, message)
        if not found.used and not found.unknown and not any(part in stage.name for part in found.text.split("/")):
            message = f'FROM --platform flag should not use constant value "{found.text}"'
            yield Finding("FromPlatformFlagConstDisallowed", opening.line, message)


def check_stage(stage: i.Stage, *, has_shell: bool) -> Iterator[Finding]:
    """What can be seen without variables in a stage that is built; `has_shell`: its base names a shell."""
    last: dict[str, int] = {}
    for step in stage.steps:
        name = step.code.split(maxsplit=1)[0]
        if isinstance(step, i.Shell):
            has_shell = True
        if isinstance(step, (i.Cmd, i.Entrypoint, i.Healthcheck)):
            if step.keyword in last:
                message = (
                    f"Multiple {name} instructions should not be used in the same stage because only the last one "
                    "will be used"
                )
                yield Finding("MultipleInstructionsDisallowed", last[step.keyword], message)
            last[step.keyword] = step.line
        if isinstance(step, (i.Cmd, i.Entrypoint)) and step.command.shell and not has_shell:
            message = f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
            yield Finding("JSONArgsRecommended", step.line, message)
        if isinstance(step, (i.Env, i.Label)):
            yield from _legacy(step, name)
        yield from _secrets(step)


def _from(node: Node) -> Iterator[Finding]:
    word, name = node.args[1], node.args[2]
    if name != name.lower():
        yield Finding("StageNameCasing", node.start, f"Stage name '{name}' should be lowercase")
    lower, upper = node.keyword.islower(), node.keyword.isupper()
    if (lower and not word.islower()) or (upper and not word.isupper()):
        message = f"'{word}' and '{node.keyword}' keywords' casing do not match"
        yield Finding("FromAsCasing", node.start, message)


def _casing(syntax: Syntax) -> Iterator[Finding]:
    """One casing for all instructions, that of the most; ARGs before the first FROM do not count."""
    first = next((at for at, node in enumerate(syntax.nodes) if node.keyword.lower() == "from"), len(syntax.nodes))
    nodes = syntax.nodes[first:]
    lower = sum(node.keyword.islower() for node in nodes) > sum(node.keyword.isupper() for node in nodes)
    for node in nodes:
        if node.keyword != (node.keyword.lower() if lower else node.keyword.upper()):
            wanted = "lowercase" if lower else "uppercase"
            message = f"Command '{node.keyword}' should match the case of the command majority ({wanted})"
            yield Finding("ConsistentInstructionCasing", node.start, message)


def _legacy(step: i.Env | i.Label, name: str) -> Iterator[Finding]:
    if any(pair.spaced for pair in step.pairs):
        message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
        yield Finding("LegacyKeyValueFormat", step.line, message)


def _secrets(step: i.Instruction) -> Iterator[Finding]:
    if isinstance(step, i.Env):
        names = [pair.name for pair in step.pairs]
    elif isinstance(step, i.Arg):
        names = [declared.name for declared in step.declared]
    else:
        return
    for name in names:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({step.keyword} "{name}")'
            yield Finding("SecretsUsedInArgOrEnv", step.line, message)
