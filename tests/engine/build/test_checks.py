"""Build checks: each rule, the directive, comments above instructions, and the build argument."""

from __future__ import annotations

import pytest

from engine.build import DockerfileError, Notice, StepError
from engine.build.checks import Settings, parse_settings
from tests.engine.build.conftest import Bench

pytestmark = pytest.mark.kernel


async def findings(bench: Bench, text: str, **more: object) -> list[str]:
    await bench.build(text, **more)
    return [f"{event.line} {event.text}" for event in bench.events if isinstance(event, Notice) and event.line]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM scratch AS Base\n", "1 StageNameCasing: Stage name 'Base' should be lowercase"),
        ("FROM scratch as base\n", "1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"),
        ("FROM scratch\nRUN a \\\n\n  b\n", "4 NoEmptyContinuation: Empty continuation line"),
        (
            "FROM scratch\nrun x\nENV a=b\n",
            "2 ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "FROM scratch AS a\nFROM scratch AS a\n",
            '2 DuplicateStageName: Duplicate stage name "a", stage names should be unique',
        ),
        (
            "FROM scratch AS context\n",
            '1 ReservedStageName: Stage name should not use the same name as reserved stage "context"',
        ),
        (
            "FROM scratch\nCMD echo\n",
            "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent",
        ),
        (
            "FROM scratch\nMAINTAINER me\n",
            "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
        ),
        (
            "ARG BASE=scratch\nFROM ${BSE:-scratch}\n",
            "2 UndefinedArgInFrom: FROM argument 'BSE' is not declared (did you mean BASE?)",
        ),
        (
            "FROM scratch\nWORKDIR app\n",
            '2 WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes',
        ),
        (
            "FROM scratch\nARG name\nENV x=$nme\n",
            "3 UndefinedVar: Usage of undefined variable '$nme'",
        ),
        (
            "FROM scratch\nENV name=1\nLABEL x=$nme\n",
            "3 UndefinedVar: Usage of undefined variable '$nme' (did you mean $name?)",
        ),
        (
            'FROM scratch\nCMD ["a"]\nCMD ["b"]\n',
            "2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage",
        ),
        (
            "FROM scratch\nENV a b\n",
            '2 LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format',
        ),
        (
            "FROM --platform=$TARGETPLATFORM scratch\n",
            "1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant",
        ),
        (
            "FROM --platform=linux/amd64 scratch\n",
            '1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64"',
        ),
        (
            "FROM scratch\nARG API_KEY\n",
            '2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY")',
        ),
        (
            "FROM scratch\nEXPOSE 80/TCP\n",
            "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ),
        (
            "FROM scratch\nEXPOSE 1:80\n",
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found",
        ),
    ],
    ids=lambda value: value.split()[1].strip(":") if value[:1].isdigit() else "",
)
async def test_rules(bench: Bench, text: str, wanted: str) -> None:
    (found,) = await findings(bench, text)
    assert found.startswith(wanted)
    rule = wanted.split()[1].strip(":")
    assert await findings(bench, f"# check=skip={rule}\n{text}") == []
    with pytest.raises(DockerfileError, match=f"lint violation found for rules: {rule}"):
        await bench.build(f"# check=error=true\n{text}")


async def test_nothing_to_say(bench: Bench) -> None:
    text = """\
FROM scratch AS one
ARG PUBLIC_KEY TOKEN_FILE
SHELL ["/bin/sh", "-c"]
WORKDIR /a
WORKDIR b
CMD with the shell that was chosen
FROM one AS linux-amd64
WORKDIR c
ENTRYPOINT inherits it
"""
    assert await findings(bench, text) == []


async def test_a_comment_spares_one_instruction(bench: Bench) -> None:
    text = "FROM scratch\n# check=skip=LegacyKeyValueFormat for the old tool\nENV a b\nENV c d\n"
    assert [line.split()[0] for line in await findings(bench, text)] == ["4"]
    assert await findings(bench, text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}) == []
    with pytest.raises(DockerfileError, match="LegacyKeyValueFormat"):
        await bench.build(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "error=true"})


def test_settings() -> None:
    assert parse_settings("skip=A, B;error=true") == Settings(frozenset({"A", "B"}), error=True)
    assert parse_settings("") == Settings()
    for wrong in ("skp=A", "error=maybe", "skip"):
        with pytest.raises(DockerfileError):
            parse_settings(wrong)


async def test_an_epoch_from_the_dockerfile(bench: Bench) -> None:
    image = await bench.build("ARG SOURCE_DATE_EPOCH=1000000000\nFROM scratch\nLABEL a=1\n")
    assert image.config.created == "2001-09-09T01:46:40.000000Z"


async def test_what_ignore_rules_leave_out_is_said_before_it_fails(bench: Bench) -> None:
    bench.write(kept="k", _dot_dockerignore="left\n*.o\n")
    text = "FROM scratch\nCOPY kept left* *.o /\nADD left/x /\n"
    with pytest.raises(StepError, match=r"excluded by \.dockerignore"):
        await bench.build(text)
    said = [event.text for event in bench.events if isinstance(event, Notice)]
    assert said == [
        'CopyIgnoredFile: Attempting to Copy file "*.o" that is excluded by .dockerignore',
        'CopyIgnoredFile: Attempting to Add file "left/x" that is excluded by .dockerignore',
    ]
    bench.write(_dot_dockerignore="*\n!kept\n")
    assert await findings(bench, "FROM scratch\nCOPY kept /\n") == []


@pytest.mark.parametrize(
    ("text", "args", "wanted"),
    [
        ("ARG V\nFROM below:$V\n", {"V": "1"}, ["ARG below:$V"]),
        ("ARG V\nFROM $V\n", {"V": "below:1"}, ["ARG $V"]),
        ("ARG V=1\nFROM below:${V}\n", {}, []),
        ("ARG V\nFROM below:1$V\n", {}, []),
    ],
)
async def test_defaults_that_name_no_base(bench: Bench, text: str, args: dict[str, str], wanted: list[str]) -> None:
    await bench.build("FROM scratch\nRUN write /x y\n", tags=("below:1",))
    assert await findings(bench, text, build_args=args) == [
        f"2 InvalidDefaultArgInFrom: Default value for {name} results in empty or invalid base image name"
        for name in wanted
    ]


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ("$BULIDPLATFORM", "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)"),
        ("linux/$MYARCH", "failed to parse platform linux/$MYARCH: .* (did you mean MY_ARCH?)"),
    ],
)
async def test_platforms_of_misspelt_variables(bench: Bench, platform: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message.replace("$", r"\$").replace("(", r"\(").replace("?)", r"\?\)")):
        await bench.build(f"ARG MY_ARCH=amd64\nFROM --platform={platform} scratch\n")
